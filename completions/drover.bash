# SPDX-License-Identifier: Apache-2.0
# bash completion for drover(1)

_drover_vms() {
	drover "${root[@]}" --no-color ls 2>/dev/null | awk 'NR > 1 { print $1 }'
}

_drover_nodes() {
	drover "${root[@]}" --no-color node ls 2>/dev/null | awk 'NR > 1 { print $1 }'
}

_drover() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local commands="apply ls status explain start stop restart kill pause resume ensure migrate unmigrate move migrations rm exec
		console monitor qmp guest handle-consul-event hardware volume events logs config node cluster shutdown-all version
		help"
	local everywhere="--root --format --no-color --help --version"
	local waiting="--wait --no-wait --timeout"
	local command="" options="" i root=()

	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--root) root=(--root "${COMP_WORDS[++i]}") ;;
		--format | --timeout | --lines | -n | --volume | --to | --method | --max-downtime | --bandwidth) ((i++)) ;;
		--) return ;;
		-*) ;;
		*) command=${COMP_WORDS[i]} && break ;;
		esac
	done
	case $prev in
	--root) compopt -o dirnames && return ;;
	--format) COMPREPLY=($(compgen -W "table json" -- "$cur")) && return ;;
	--to) COMPREPLY=($(compgen -W "$(_drover_nodes)" -- "$cur")) && return ;;
	--method) COMPREPLY=($(compgen -W "auto live shutdown" -- "$cur")) && return ;;
	--timeout | --lines | -n | --volume | --max-downtime | --bandwidth) return ;;
	esac
	case $command in
	apply) options="$waiting --dry-run" ;;
	start | stop | restart | kill | pause | resume | ensure) options=$waiting ;;
	migrate) options="$waiting --to --method --max-downtime --bandwidth --postcopy --cancel" ;;
	move) options="$waiting --to --method --max-downtime --bandwidth --postcopy" ;;
	unmigrate) options=$waiting ;;
	rm) options="--volume --timeout" ;;
	exec) options="--stdin --timeout" ;;
	console) options="--lines" ;;
	monitor | qmp | guest) options="--timeout" ;;
	events) options="--lines --follow" ;;
	logs) options="--agent --keeper --qemu --serial --lines" ;;
	shutdown-all) options="$waiting --yes" ;;
	node) options=$waiting ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$options $everywhere" -- "$cur"))
		return
	fi
	case $command in
	"" | help) COMPREPLY=($(compgen -W "$commands" -- "$cur")) ;;
	apply) compopt -o filenames && COMPREPLY=($(compgen -f -- "$cur")) ;;
	node)
		if [[ $prev == status ]]; then
			COMPREPLY=($(compgen -W "$(_drover_nodes)" -- "$cur"))
		else
			COMPREPLY=($(compgen -W "status ls ready reexec" -- "$cur"))
		fi
		;;
	cluster)
		if [[ $prev == join ]]; then
			compopt -o filenames && COMPREPLY=($(compgen -f -- "$cur"))
		elif [[ $prev == token || $prev == leave ]]; then
			COMPREPLY=($(compgen -W "$(_drover_nodes)" -- "$cur"))
		else
			COMPREPLY=($(compgen -W "status init token join leave" -- "$cur"))
		fi
		;;
	volume)
		if [[ $prev == ls ]]; then
			COMPREPLY=($(compgen -W "$(_drover_vms)" -- "$cur"))
		else
			COMPREPLY=($(compgen -W "ls" -- "$cur"))
		fi
		;;
	ls | config | shutdown-all | version) ;;
	*)
		if ((i == COMP_CWORD - 1)); then
			COMPREPLY=($(compgen -W "$(_drover_vms)" -- "$cur"))
		fi
		;;
	esac
}

complete -F _drover drover
