# For packaging/deb and packaging/tarball: their options, and the tree that both pack. To be
# sourced by bash.
#
#   take_options "$@"    sets root, out, version, arch, bin_dir; exits on --help
#   programs             builds the release programs, unless --bin-dir named ready ones
#   make_tree FOLDER     fills an empty folder with what is installed below /
# shellcheck shell=bash

programs_of_all=(nexcage nexcage-init containerd-shim-nexcage-v1)

take_options() {
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
    out=$root/target/packages
    version=$(awk -F'"' '/^version/ { print $2; exit }' "$root/Cargo.toml")
    # shellcheck disable=SC2034 # for those who source this
    arch=$(dpkg --print-architecture)
    bin_dir=
    local option
    while [[ $# -gt 0 ]]; do
        option=$1
        case $option in
            --bin-dir | --out | --version) [[ $# -gt 1 ]] || die "$option needs a value" ;;
            *) die "usage: $(basename "$0") [--bin-dir DIR] [--out DIR] [--version VERSION]" ;;
        esac
        case $option in
            --bin-dir) bin_dir=$(realpath -e "$2") ;;
            --out) out=$(realpath -m "$2") ;;
            --version) version=$2 ;;
        esac
        shift 2
    done
    # What dpkg takes as a version without a revision.
    [[ $version =~ ^[0-9][A-Za-z0-9.+~]*$ ]] || die "$version is no version"
    if [[ -z ${SOURCE_DATE_EPOCH:-} ]]; then
        SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null) ||
            SOURCE_DATE_EPOCH=$(stat -c %Y "$root/CHANGELOG.md")
    fi
    export SOURCE_DATE_EPOCH
    mkdir -p "$out"
    work=$(mktemp -d "$out/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    umask 022
}

# The folder of the sources and that of the registry become short names in the programs, or
# each would hold this machine's paths.
programs() {
    local host name home=${CARGO_HOME:-${HOME:-/root}/.cargo} program environment
    if [[ -z $bin_dir ]]; then
        environment=$("$root/packaging/toolchain")
        eval "$environment"
        host=$(rustc --print host-tuple)
        name=${host^^}
        export "CARGO_TARGET_${name//-/_}_RUSTFLAGS=--remap-path-prefix=$home=/cargo --remap-path-prefix=$root=/nexcage"
        (cd "$root" && cargo build --release --locked --bins)
        bin_dir=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/$host/release
        for program in "${programs_of_all[@]}"; do
            ! grep -qaF -e "$root/" -e "$home/" "$bin_dir/$program" || die "$program has paths of this machine in it"
        done
    fi
    for program in "${programs_of_all[@]}"; do
        [[ -x $bin_dir/$program ]] || die "there is no $program in $bin_dir"
    done
}

# put MODE FILE PATH: one file of the tree.
put() { install -D -m "$1" "$2" "$tree$3"; }

make_tree() {
    tree=$1
    local shell path program=$bin_dir/nexcage page
    put 755 "$bin_dir/nexcage" /usr/bin/nexcage
    put 755 "$bin_dir/containerd-shim-nexcage-v1" /usr/bin/containerd-shim-nexcage-v1
    put 755 "$bin_dir/nexcage-init" /usr/libexec/nexcage/nexcage-init
    put 644 "$root/packaging/config.json" /etc/nexcage/config.json
    put 644 "$root/packaging/tmpfiles.conf" /usr/lib/tmpfiles.d/nexcage.conf

    "$program" config schema >"$work/made"
    put 644 "$work/made" /usr/share/nexcage/config.schema.json
    for path in containerd kubernetes podman crio docker; do
        while IFS= read -r page; do
            put "$([[ $page == *.sh ]] && echo 755 || echo 644)" "$page" "/usr/share/nexcage/${page#"$root/packaging/"}"
        done < <(find "$root/packaging/$path" -type f | LC_ALL=C sort)
    done

    for shell in bash zsh fish; do
        "$program" completions "$shell" >"$work/made"
        case $shell in
            bash) path=/usr/share/bash-completion/completions/nexcage ;;
            zsh) path=/usr/share/zsh/vendor-completions/_nexcage ;;
            fish) path=/usr/share/fish/vendor_completions.d/nexcage.fish ;;
        esac
        put 644 "$work/made" "$path"
    done
    mkdir "$work/man"
    "$program" man "$work/man"
    for page in "$work/man"/*.1; do
        gzip -9n "$page"
        put 644 "$page.gz" "/usr/share/man/man1/${page##*/}.gz"
    done

    gzip -9nc "$root/CHANGELOG.md" >"$work/made"
    put 644 "$work/made" /usr/share/doc/nexcage/changelog.gz
    put 644 "$root/packaging/debian/copyright" /usr/share/doc/nexcage/copyright
    for path in proxmox nerdctl kubernetes; do
        put 644 "$root/packaging/$path.md" "/usr/share/doc/nexcage/$path.md"
    done
    gzip -9nc "$root/packaging/containerd-shim-nexcage-v1.8" >"$work/made"
    put 644 "$work/made" /usr/share/man/man8/containerd-shim-nexcage-v1.8.gz
    rm -rf "$work/man" "$work/made"

    # The same tree has the same bytes, whenever and by whomever it is packed.
    find "$tree" -type d -exec chmod 755 {} +
    find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
}
