# Set-up shared by deploy/dev and deploy/test: everything a bare Debian 12 lacks, each step only if needed.
# Sourced, not run. Every function says what it does; nothing is done twice.

say() { printf '== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

find_python() {
  for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      PYTHON=$(command -v "$candidate")
      return
    fi
  done
  fail "Python 3.11 or newer is needed"
}

engine_answers() { docker version >/dev/null 2>&1; }

# Whether a command, or a C header of Python, is there.
has() {
  case "$1" in
    *.h) [ -e "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/$1" ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# What is missing, as Debian packages. $1 = more packages to look for, as "command:package" or "header:package".
missing_packages() {
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || echo python3-venv
  if ! engine_answers && ! command -v dockerd >/dev/null; then echo docker.io iptables; fi
  command -v busybox >/dev/null && busybox true 2>/dev/null || echo busybox-static
  for pair in "$@"; do has "${pair%%:*}" || echo "${pair#*:}"; done
}

# Install what is missing; asks once on a terminal unless YES=1. Never fails: what stays missing is said later.
install_packages() {
  packages=$(missing_packages "$@" | tr '\n' ' ')
  if [ -z "${packages# }" ]; then return; fi
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here; missing: $packages"
    return
  fi
  if [ "${YES:-0}" != 1 ] && [ -t 0 ] && [ -t 1 ]; then
    printf 'Install these Debian packages? %s[Y/n] ' "$packages"
    read -r answer
    case "$answer" in [nN]*) say "not installed; going on without"; return ;; esac
  fi
  say "installing Debian packages: $packages"
  as_root apt-get update -qq >/dev/null || say "apt-get update failed; trying with what is known"
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null ||
    say "some packages could not be installed: $packages"
}

# A venv with this package and the given extras, renewed when pyproject.toml changes.
make_venv() {
  extras=$1
  stamp="$("$PYTHON" -c 'import sys; print(sys.version_info[:2])') $extras $(cksum <pyproject.toml)"
  if [ "$(cat .venv/.eventsched-stamp 2>/dev/null)" = "$stamp" ] && .venv/bin/python -c 'import eventsched' 2>/dev/null; then
    return
  fi
  say "making .venv and installing eventsched[$extras]"
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv || fail "the venv cannot be made; install python3-venv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]" || fail "pip install failed"
  printf '%s' "$stamp" >.venv/.eventsched-stamp
}

start_engine() {
  if engine_answers; then return 0; fi
  if ! command -v dockerd >/dev/null; then
    say "no container engine: dockerd is not installed"
    return 1
  fi
  if [ "$(cat /proc/1/comm)" = systemd ]; then
    say "starting docker by systemd"
    as_root systemctl start docker || true
  else
    mountpoint -q /sys/fs/cgroup || { command -v cgroupfs-mount >/dev/null && as_root cgroupfs-mount; }
    say "starting dockerd (log: /var/log/dockerd.log)"
    as_root sh -c 'setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &' || return 1
  fi
  for _ in $(seq 1 60); do
    if engine_answers; then return 0; fi
    sleep 0.5
  done
  if as_root docker version >/dev/null 2>&1; then
    say "docker runs, but user $(id -un) may not use it: join the group docker, or run this as root"
  else
    say "dockerd did not come up; the end of its log:"
    tail -n 3 /var/log/dockerd.log 2>/dev/null || true
  fi
  return 1
}

# busybox and alpine: there already, pulled, or made of busybox-static.
make_images() {
  for image in busybox alpine; do
    if docker image inspect "$image:latest" >/dev/null 2>&1; then continue; fi
    say "pulling $image"
    if timeout 30 docker pull -q "$image" >/dev/null 2>&1; then continue; fi
    if ! busybox true 2>/dev/null; then
      say "$image cannot be pulled, and there is no busybox-static to make it of"
      return 1
    fi
    say "$image cannot be pulled: importing one made of busybox-static"
    root=$(mktemp -d)
    mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$root/root"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
      [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    tar -C "$root" -c . | docker import - "$image:latest" >/dev/null
    rm -rf "$root"
  done
}
