# shellcheck shell=bash disable=SC2154
# What Debian's packages are had with, for scripts to source: this machine's own suite
# to install tools from, and any other suite to unpack packages of, which are never
# installed. Every source is the one that this machine's apt uses already.
#
# The caller has `set -eEuo pipefail`, and defines
#     say, die    functions that print one line; die exits
#     store       a folder that keeps the lists and the downloads; the caller holds its lock
#     work        a folder for what need not be kept
#     part        what is being made, for messages
# and may define
#     assumed     packages, blanks between, that need not come from the other suite,
#                 because this machine has them

cache=$store/cache
assumed=${assumed:-}
mkdir -p "$cache"

# --- Tools of the machine's own suite -------------------------------------------

# Waits for another apt of this machine instead of failing beside it. Closes fd 9, the
# caller's lock, which a daemon started by some package would keep.
own_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@" 9>&-
}

# own PACKAGE…: installs those that are missing. The machine is asked every time: a
# folder kept from another machine must not hide what this one lacks.
own() {
    local missing=() p have
    have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null) || true
    for p in "$@"; do
        [[ $'\n'$have$'\n' == *$'\n'"installed $p"$'\n'* ]] || missing+=("$p")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing ${missing[*]}"
    # Fresh lists only if the present ones fail: they are slow to fetch.
    own_apt install -y --no-install-recommends "${missing[@]}" >"$work/log" 2>&1 && return 0
    own_apt update >"$work/log" 2>&1 || true
    own_apt install -y --no-install-recommends "${missing[@]}" >"$work/log" 2>&1 ||
        die "cannot install ${missing[*]} from this machine's apt sources ($(tail -n1 "$work/log")): mend the sources or install them by hand"
}

# --- Private apt sources ----------------------------------------------------------

# main_stanza SUITE: the machine's own source of Debian's main archive, as a
# deb822 stanza that names SUITE instead. A machine's file may hold several
# stanzas (security, updates, other vendors); the right one has the component
# main, and a suite that is a plain Debian name. security and updates are left
# out: the main suite has a version of everything, and sid has no such siblings.
main_stanza() {
    local files=() f
    for f in /etc/apt/sources.list.d/*.sources; do [[ -f $f ]] && files+=("$f"); done
    if [[ ${#files[@]} -gt 0 ]]; then
        # A blank line after each file keeps the last stanza of one apart from the next.
        for f in "${files[@]}"; do cat "$f"; echo; done | awk -v suite="$1" '
            function flush(  i, n, w, main, plain) {
                n = split(comps, w); for (i = 1; i <= n; i++) if (w[i] == "main") main = 1
                n = split(suites, w)
                for (i = 1; i <= n; i++)
                    if (w[i] ~ /^(bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)$/) plain = 1
                if (!done && main && plain && deb && !off) {
                    printf "%s", text; print "Suites: " suite; print "Components: main"; done = 1
                }
                text = ""; suites = ""; comps = ""; deb = 0; off = 0; field = ""
            }
            /^[ \t]*$/ { flush(); next }
            /^#/       { next }
            # A line that begins with a blank goes on with the field before it.
            /^[ \t]/   { if (field == "suites") suites = suites " " $0
                         else if (field == "components") comps = comps " " $0
                         else if (field != "types") text = text $0 "\n"
                         next }
            { field = tolower($0); sub(/:.*/, "", field); value = $0; sub(/^[^:]*:/, "", value) }
            field == "suites"     { suites = value; next }
            field == "components" { comps = value; next }
            field == "types"      { deb = (" " value " ") ~ /[ \t]deb[ \t]/; text = text "Types: deb\n"; next }
            field == "enabled"    { off = value ~ /no|false|0/ }
            { text = text $0 "\n" }
            END { flush() }'
        return
    fi
    # Older machines: deb [options] URI SUITE COMPONENTS…
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } | awk -v suite="$1" '
        $1 != "deb" || done { next }
        {
            line = $0; sub(/^deb[ \t]+/, "", line); options = ""
            if (match(line, /^\[[^]]*\]/)) { options = substr(line, 1, RLENGTH); line = substr(line, RLENGTH + 1) }
            n = split(line, w); main = 0
            for (i = 3; i <= n; i++) if (w[i] == "main") main = 1
            if (!main || w[2] !~ /^(bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)$/) next
            print "Types: deb"; print "URIs: " w[1]; print "Suites: " suite; print "Components: main"
            if (match(options, /signed-by=[^ \]]+/)) print "Signed-By: " substr(options, RSTART + 10, RLENGTH - 10)
            done = 1
        }'
}

# suite_apt SUITE COMMAND…: apt-get that knows SUITE only and believes that nothing but
# $assumed is installed. It shares the machine's transport settings and keys, nothing else.
suite_apt() {
    local dir=$store/apt/$1
    apt-get -qq \
        -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$dir/sources" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" -o Dir::State::lists="$dir/lists" \
        -o Dir::Cache="$dir/cache" -o Dir::Cache::archives="$cache" \
        -o APT::Default-Release= -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Debug::NoLocking=true "${@:2}"
}

declare -gA fresh
# suite SUITE: makes the private source and brings its lists, once a run.
suite() {
    [[ -z ${fresh[$1]:-} ]] || return 0
    local dir=$store/apt/$1
    say "reading the package lists of $1"
    mkdir -p "$dir"/{sources,state,lists/partial,cache} "$cache/partial"
    # One made-up package stands for all: its version is higher than any that is asked for.
    : >"$dir/status"
    [[ -z $assumed ]] || printf '%s\n' 'Package: assumed' 'Status: install ok installed' 'Version: 999' \
        'Architecture: all' 'Maintainer: nobody' "Provides: ${assumed// / (= 999), } (= 999)" \
        'Description: what the machine has' >"$dir/status"
    main_stanza "$1" >"$dir/sources/main.sources"
    [[ -s $dir/sources/main.sources ]] ||
        die "$part: no apt source of Debian's main archive on this machine: add one to /etc/apt/sources.list.d"
    # A mirror that lacks the suite is an error, a hook of the machine that fails is not.
    suite_apt "$1" update >"$work/log" 2>&1 || true
    compgen -G "$dir/lists/*_Packages*" >/dev/null ||
        die "$part: this machine's Debian mirror does not offer $1 ($(tail -n1 "$work/log")): use a mirror that has it"
    fresh[$1]=1
}

# Both functions below learn file names from --print-uris, whose lines read
#     'uri' file size hash
# and which leaves out what is downloaded already: hence the empty folders.

# debs SUITE PACKAGE…: downloads the packages with all they depend on, and leaves
# the files' paths in the array `debs`.
debs() {
    local from=$1; shift
    suite "$from"
    mkdir -p "$work/none/partial"
    suite_apt "$from" -o Dir::Cache::archives="$work/none" install --print-uris -y \
        --no-install-recommends "$@" >"$work/uris" 2>"$work/log" ||
        die "$part: $* cannot be had from $from ($(tail -n1 "$work/log")): see what the suite calls it now"
    say "$part: $* of $from and the libraries"
    suite_apt "$from" install --download-only -y --no-install-recommends "$@" >"$work/log" 2>&1 ||
        die "$part: the download from $from failed ($(tail -n1 "$work/log")): run this again"
    debs=()
    local file
    while read -r file; do debs+=("$cache/$file"); done < <(awk '{ print $2 }' "$work/uris")
}

# deb SUITE PACKAGE [PATTERN]: downloads the package alone, checks its version
# against the shell PATTERN, and leaves the file's path in `deb`.
deb() {
    suite "$1"
    local file version
    mkdir -p "$work/none"
    file=$(cd "$work/none" && suite_apt "$1" download --print-uris "$2" 2>"$work/log" | awk '{ print $2 }') || true
    [[ -n $file ]] || die "$part: $1 has no package $2: see what it is called there now"
    version=${file#*_}
    # shellcheck disable=SC2053 # the third argument is a pattern
    [[ $version == ${3:-*} ]] ||
        die "$part: $1 now offers $2 ${version%_*}, not ${3:-}: name another suite in tests/bed/fetch"
    say "$part: $2 ${version%_*} of $1"
    deb=$cache/$file
    [[ -f $deb ]] || (cd "$cache" && suite_apt "$1" download "$2") >"$work/log" 2>&1 || true
    [[ -f $deb ]] || die "$part: the download of $2 from $1 failed ($(tail -n1 "$work/log")): run this again"
}
