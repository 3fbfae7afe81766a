/* SPDX-License-Identifier: Apache-2.0 */
/* The records of the cluster are brought to the next form, by whichever agent finds first that all
 * can work with it.  Nobody has to be told to; whoever knows only the former form holds it up. */
#pragma once
#include <jansson.h>

struct node;
struct upgrade;

void upgrade_open(struct node *node);
struct upgrade *upgrade_close(struct upgrade *upgrade);

/* Our session with the store is there, and the form of the records was looked at. */
void upgrade_look(struct node *node);
/* {version, newest, to, by, trouble: why it does not go on, or null} */
json_t *upgrade_json(const struct node *node);
