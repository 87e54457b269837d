#!/bin/sh
# Puts nexcage on a node of Kubernetes, and takes it away again:
#
#   install.sh install     programs, and the runtime `nexcage` in containerd's configuration
#   install.sh uninstall   both away; refused while containers of nexcage are there
#   install.sh check       succeeds when everything is in place
#
# All can be repeated, also after having been killed half way. Programs are replaced by rename, so
# that what runs goes on with its own. containerd is restarted when its configuration changed, and
# only then; containers go on meanwhile. A configuration is taken only if the node's containerd
# reads it, and all that it did before is still in it.
#
# Set by environment variables:
#   NODE      the node's root (/host)
#   TREE      what the tarball holds (the tree that this script is in)
#   BIN_DIR   where programs go, a folder of containerd's PATH (/usr/local/bin)
#   ON_NODE   command that runs a command on the node (nsenter into pid 1)
set -eu
umask 022

NODE=${NODE-/host}
TREE=${TREE-$(cd "$(dirname "$0")/../../../.." && pwd -P)}
BIN_DIR=${BIN_DIR-/usr/local/bin}
ON_NODE=${ON_NODE-nsenter -t 1 -m -u -i -n --}

folder=/etc/containerd
config=$folder/config.toml
dropin=$folder/conf.d/nexcage.toml
# There as long as containerd has not read what was last written.
restart_wanted=$NODE$folder/.nexcage-restart
begin='# nexcage begin: written by its installer, and removed by it'
end='# nexcage end'

say() { echo "nexcage: $*"; }
die() { echo "nexcage: $*" >&2; exit 1; }

# programs FUNCTION: calls it with source and destination of each. The shim comes last, for it
# is what uses the others.
programs() {
    "$1" "$TREE/usr/libexec/nexcage/nexcage-init" "$NODE$BIN_DIR/nexcage-init"
    "$1" "$TREE/usr/bin/nexcage" "$NODE$BIN_DIR/nexcage"
    "$1" "$TREE/usr/bin/containerd-shim-nexcage-v1" "$NODE$BIN_DIR/containerd-shim-nexcage-v1"
}

same() { cmp -s "$1" "$2" && [ -x "$2" ]; }

put() {
    rm -f "$2".nexcage-new
    ! same "$1" "$2" || return 0
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2".nexcage-new
    chmod 755 "$2".nexcage-new
    mv -f "$2".nexcage-new "$2"
    say "put ${2#"$NODE"}"
}

take() {
    rm -f "$2".nexcage-new
    [ -e "$2" ] || return 0
    rm -f "$2"
    say "removed ${2#"$NODE"}"
}

in_place() { same "$1" "$2" || die "${2#"$NODE"} is not there yet, or of another version"; }

# --- containerd's configuration ---------------------------------------------------------

# without_block: standard input, without what this script has written into it.
without_block() {
    awk -v begin="$begin" -v end="$end" '
        $0 == begin { inside = 1 }
        !inside { print }
        $0 == end { inside = 0 }'
}

# version FILE: the format's version.
version() { sed -n 's/^[[:space:]]*version[[:space:]]*=[[:space:]]*\([0-9][0-9]*\).*/\1/p' "$1" | head -n 1; }

# imports FILE: does it import the folder of drop-ins, and may it? containerd 1.x puts an imported
# table for CRI in the place of the file's own, and 2.x merges files of version 3.
imports() {
    grep -q "^[[:space:]]*imports[[:space:]]*=.*$folder/conf\.d/\*\.toml" "$1" || return 1
    [ "$(version "$1")" = 3 ] || ! grep -q 'io\.containerd\.grpc\.v1\.cri' "$1"
}

# table VERSION: the runtime's tables. containerd 1.x forgets the runc that is built in when any
# runtime is named, so where only that stands for it, it is named as containerd itself said it.
table() {
    sed -n '/^\[.*runtimes\.nexcage\]/,/^# containerd/ { /^#/d; p; }' \
        "$TREE/usr/share/nexcage/containerd/nexcage-v$1.toml"
    grep -q 'runtimes\.runc\]' "$work/plain" ||
        awk '/^[[:space:]]*\[/ { on = /io\.containerd\.grpc\.v1\.cri.*runtimes\.runc[].]/ } on' "$work/before.toml"
}

# dump FILE NAME: $work/NAME.toml is what the node's containerd makes of a configuration, and
# $work/NAME its lines without their indentation.
dump() {
    # shellcheck disable=SC2086 # a command and its arguments
    $ON_NODE containerd --config "$1" config dump >"$work/$2.toml" 2>"$work/err" ||
        die "the node's containerd does not read $1: $(tail -n 1 "$work/err")"
    sed '/^[[:space:]]*imports[[:space:]]*=/d; s/^[[:space:]]*//' "$work/$2.toml" >"$work/$2"
}

# accept: is all that containerd said before still said, and the runtime, too?
accept() {
    grep -q 'runtimes\.nexcage\]' "$work/now" || { say "containerd does not see the runtime in it" >&2; return 1; }
    awk 'NR == FNR { now[$0]++; next } now[$0]-- < 1' "$work/now" "$work/before" >"$work/lost" || return
    [ ! -s "$work/lost" ] || { say "this would be lost: $(head -n 1 "$work/lost")" >&2; return 1; }
}

# swap FILE PATH: makes FILE the node's PATH; an empty one removes it.
swap() {
    if cmp -s "$1" "$NODE$2" || { [ ! -s "$1" ] && [ ! -e "$NODE$2" ]; }; then return 0; fi
    mkdir -p "$NODE$folder"
    : >"$restart_wanted"
    if [ -s "$1" ]; then
        mkdir -p "$(dirname "$NODE$2")"
        # Keeps owner and mode of what was there.
        [ ! -e "$NODE$2" ] || cp -p "$NODE$2" "$NODE$2.nexcage-new"
        cat "$1" >"$NODE$2.nexcage-new"
        mv -f "$NODE$2.nexcage-new" "$NODE$2"
    else
        rm -f "$NODE$2"
    fi
    say "changed $2"
}

configure() {
    file=$NODE$config
    tried=$config.nexcage-new
    # Killed half way, it may have left these.
    rm -f "$NODE$tried" "$NODE$dropin.nexcage-new"
    [ ! -e "$NODE$dropin.nexcage-old" ] || mv -f "$NODE$dropin.nexcage-old" "$NODE$dropin"
    : >"$work/plain"
    [ ! -e "$file" ] || without_block <"$file" >"$work/plain"
    if grep -q 'runtimes\.nexcage\]' "$work/plain"; then
        say "$config has a runtime nexcage already, which is left as it is"
        return 0
    fi
    # Version 2 is read by every containerd.
    wanted=2
    [ ! -s "$work/plain" ] || wanted=$(version "$work/plain")
    case $wanted in
        2 | 3) ;;
        *) die "$config is of version ${wanted:-1}, which has no such runtimes: run \`containerd config migrate\` first" ;;
    esac

    # What containerd says without nexcage. An earlier drop-in is out of the way meanwhile.
    mkdir -p "$NODE$folder"
    [ ! -e "$NODE$dropin" ] || mv -f "$NODE$dropin" "$NODE$dropin.nexcage-old"
    if [ -s "$work/plain" ]; then cat "$work/plain"; else echo 'version = 2'; fi >"$NODE$tried"
    (dump "$tried" before) || { put_back; exit 1; }

    : >"$work/dropin"
    if imports "$work/plain"; then
        { echo "$begin"; echo "version = $wanted"; table "$wanted"; } >"$work/dropin"
        cat "$work/plain" >"$work/new"
        mkdir -p "$(dirname "$NODE$dropin")"
        cat "$work/dropin" >"$NODE$dropin"
    else
        { cat "$work/plain"; echo "$begin"; [ -s "$work/plain" ] || echo 'version = 2'
          table "$wanted"; echo "$end"; } >"$work/new"
    fi
    cat "$work/new" >"$NODE$tried"
    (dump "$tried" now && accept) || {
        put_back
        die "$config cannot be changed for nexcage; /usr/share/nexcage/containerd/README.md says what to do by hand"
    }
    put_back
    swap "$work/new" "$config"
    swap "$work/dropin" "$dropin"
}

# put_back: as it was before something was tried.
put_back() {
    rm -f "$NODE$tried" "$NODE$dropin"
    [ ! -e "$NODE$dropin.nexcage-old" ] || mv -f "$NODE$dropin.nexcage-old" "$NODE$dropin"
}

unconfigure() {
    file=$NODE$config
    rm -f "$file.nexcage-new" "$NODE$dropin.nexcage-new" "$NODE$dropin.nexcage-old"
    : >"$work/empty"
    swap "$work/empty" "$dropin"
    [ -e "$file" ] || return 0
    without_block <"$file" >"$work/plain"
    swap "$work/plain" "$config"
}

restart() {
    [ -e "$restart_wanted" ] || return 0
    say "restarting containerd, for its configuration changed"
    # shellcheck disable=SC2086 # a command and its arguments
    $ON_NODE systemctl restart containerd || die "containerd did not restart: look into its log on the node"
    rm -f "$restart_wanted"
}

configured() {
    [ ! -e "$restart_wanted" ] || die "containerd has not been restarted yet"
    grep -qs 'runtimes\.nexcage\]' "$NODE$config" "$NODE$dropin" || die "containerd has no runtime nexcage yet"
}

unused() {
    set -- "$NODE"/run/nexcage/*/*/state.json
    [ ! -e "$1" ] || die "$# container(s) of nexcage are on this node, and need it to be cleaned up: drain the node of them first"
}

# ----------------------------------------------------------------------------------------

[ $# = 1 ] || die "usage: install.sh install|uninstall|check"
[ -d "$NODE" ] || die "$NODE, the node's root, is not there"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT

case $1 in
    install)
        programs put
        configure
        restart
        say "installed"
        ;;
    uninstall)
        unused
        unconfigure
        restart
        programs take
        say "uninstalled"
        ;;
    check)
        programs in_place
        configured
        ;;
    *) die "usage: install.sh install|uninstall|check" ;;
esac
