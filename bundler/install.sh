#!/bin/sh
# Installs bundler from this folder, without a network: sh install.sh [FOLDER]
# FOLDER becomes a virtual environment; by default ~/bundler-venv. PYTHON may name the Python.
set -eu

targets="@TARGETS@"
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

fail() {
    printf 'install.sh: %s\n' "$2" >&2
    exit "$1"
}

folder=${1:-${HOME:+$HOME/bundler-venv}}
case $folder in
"" | -*) fail 2 "name a folder to install to: sh install.sh FOLDER" ;;
esac
if [ -f "$folder/pyvenv.cfg" ]; then
    set -- "$folder/bin/python"
elif [ -e "$folder" ]; then
    fail 6 "$folder is there already, and is no virtual environment: name another folder"
else
    set -- "${PYTHON:-python3}"
    for target in $targets; do
        set -- "$@" "python${target%%-*}"
    done
fi

python=""
for candidate in "$@"; do
    name=$("$candidate" -I -c 'import platform, sys
system = sys.platform.replace("darwin", "macos")
print("%d.%d-%s-%s" % (sys.version_info[0], sys.version_info[1], system, platform.machine()))
' 2>/dev/null) || continue
    case " $targets " in
    *" $name "*)
        python=$candidate
        break
        ;;
    esac
done
[ -n "$python" ] || fail 2 "no Python here that these wheels are for ($targets); \
unpack.pyz runs with any from 3.10 on, or pack again with --with-python and --with-platform"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail 2 "$python cannot make virtual \
environments (Debian: apt install python3-venv); unpack.pyz needs none"

"$python" -I -c 'import hashlib, os, sys
for line in open(os.path.join(sys.argv[1], "SHA256SUMS"), encoding="utf-8"):
    digest, _, name = line.rstrip("\n").partition("  ")
    if not line.startswith("#"):
        with open(os.path.join(sys.argv[1], name), "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != digest:
                sys.exit(name)
' "$here" 2>/dev/null || fail 4 "$here is not what was packed (sha256sum -c SHA256SUMS): copy it again"

[ -f "$folder/pyvenv.cfg" ] || "$python" -m venv "$folder" ||
    fail 6 "cannot make a virtual environment in $folder: name another folder"
folder=$(CDPATH='' cd -- "$folder" && pwd)
"$folder/bin/python" -m pip --isolated install --quiet --disable-pip-version-check --no-index \
    --find-links "$here/wheels" --require-hashes --requirement "$here/requirements.txt" ||
    fail 3 "pip cannot install these wheels, as it says above; unpack.pyz needs no installation"

printf '%s\n' "$("$folder/bin/bundler" --version) is installed in $folder" \
    "next, in this shell:" \
    "    export PATH=\"$folder/bin:\$PATH\"" \
    "    bundler unpack BUNDLE && . ./offline.env"
