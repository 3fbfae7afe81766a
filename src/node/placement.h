/* SPDX-License-Identifier: Apache-2.0 */
/* Where a VM should be, as the agent tells it to people and to the VM's keeper. */
#pragma once
#include <jansson.h>
#include <stddef.h>

struct node_vm;

/* Who says that it should be where it should be: "'kvm_host' in file alpha:/..."; into `buffer`. */
const char *placement_words(const struct node_vm *vm, char *buffer, size_t size);

/* For the keeper: how it is to be moved. */
json_t *placement_terms_json(const struct node_vm *vm);
