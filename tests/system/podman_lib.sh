#!/usr/bin/env bash
# shellcheck disable=SC2154 # run comes from the sourcing script
# podman_lib: a podman of this test alone (store, state and images in $run), with runc
# and without a network, and an image made of this machine's own shell. Sourced.

podman_skip() { # podman_skip NAME: exit 77 unless podman can run here
    local program
    [ "$(id -u)" = 0 ] || { echo "$1: needs root"; exit 77; }
    for program in podman runc conmon jq; do
        command -v $program >/dev/null || { echo "$1: $program is not installed"; exit 77; }
    done
}

# Global options: the caller's own store. Written as words of an array.
podman_options() { # podman_options [DRIVER]
    podman_global=(--root "$run/podman/store" --runroot "$run/podman/run" --tmpdir "$run/podman/tmp"
        --storage-driver "${1:-vfs}" --cgroup-manager cgroupfs --events-backend file --runtime "$(command -v runc)")
}
pod() { timeout 60 podman "${podman_global[@]}" "$@"; }

podman_image() { # podman_image NAME: /bin/sh, cat, sleep, ls, id, env with their libraries
    local root=$run/podman/image program lib
    mkdir -p "$root/bin" "$root/etc" "$root/proc" "$root/dev" "$root/tmp"
    for program in sh cat sleep ls id env sed; do
        cp -L "$(command -v $program)" "$root/bin/$program"
        ldd "$(command -v $program)" | grep -o '/[^ ]*' | while read -r lib; do
            mkdir -p "$root$(dirname "$lib")"
            cp -Ln "$lib" "$root$lib"
        done
    done
    echo 'tenant:x:65534:65534::/tmp:/bin/sh' >"$root/etc/passwd"
    tar -C "$root" -cf "$run/podman/image.tar" . && pod import -q "$run/podman/image.tar" "$1" >/dev/null 2>"$run/podman/log"
}

podman_down() { # what is left of the containers, and the store
    pod rm -af -t 0 >/dev/null 2>&1
    umount -R "$run/podman/store" >/dev/null 2>&1
    true
}
