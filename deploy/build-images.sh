#!/usr/bin/env bash
# Builds the images of server, injector and agent: one static binary each on an empty base, run as 65532. No Docker, no registry.
#
#   deploy/build-images.sh [--only NAME[,NAME]] [--tag TAG] [--out DIR] [--load ctr|kind|docker]
#
#   --only   some of server, injector, agent
#   --tag    the tag of the images (trial)
#   --out    where the archives go (target/images); each is an OCI archive that `docker load` takes too
#   --load   ctr: into containerd's namespace k8s.io; kind: into a kind cluster; docker: into Docker
#
# Environment: PROFILE, the cargo profile of server and injector (release); AGENT_PROFILE, the agent's (agent);
# TARGET, the Rust target (this machine's, for musl: x86_64-unknown-linux-musl or aarch64-unknown-linux-musl); CONTAINERD_SOCKET (/run/containerd/containerd.sock); KIND_CLUSTER (kind).
# Needs the Rust target and a C compiler for musl: `rustup target add $TARGET`, and Debian's musl-tools; and GNU tar, as `tar` or as TAR says.
set -euo pipefail

fail() { echo "build-images.sh: $*" >&2; exit 1; }

names=server,injector,agent tag=trial out= load=
while [ $# -gt 0 ]; do
  case $1 in
    --only | --tag | --out | --load) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --only) names=$2 ;;
    --tag) tag=$2 ;;
    --out) out=$2 ;;
    --load) load=$2 ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift 2
done
case $load in '' | ctr | kind | docker) ;; *) fail "--load takes ctr, kind or docker" ;; esac
case $tag in '' | *[!A-Za-z0-9._-]*) fail "a tag has characters of A-Z a-z 0-9 . _ -" ;; esac

root=$(cd "$(dirname "$0")/.." && pwd)
machine=$(uname -m)
[ "$machine" != arm64 ] || machine=aarch64
target=${TARGET:-$machine-unknown-linux-musl}
case $target in
  x86_64-*) architecture=amd64 ;;
  aarch64-*) architecture=arm64 ;;
  *) fail "no image architecture is known for $target" ;;
esac
tar=${TAR:-tar}
# Other tars cannot fix names, order and times, so that the same binary makes the same image.
[[ $("$tar" --version 2>/dev/null) == *"GNU tar"* ]] || fail "$tar is not GNU tar; install that (macOS: brew install gnu-tar) and set TAR=gtar"
target_directory=${CARGO_TARGET_DIR:-$root/target}
out=${out:-$target_directory/images}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[[ $target != *-musl ]] || {
  cc=CC_${target//-/_}
  [ -n "${!cc:-}" ] || export "$cc=musl-gcc"
  command -v "${!cc}" >/dev/null || fail "no C compiler for musl (${!cc}): install Debian's musl-tools, or set $cc"
}
installed=$(cd "$root" && rustup target list --installed 2>/dev/null) || true
grep -qx "$target" <<<"$installed" || fail "run: rustup target add $target"

# Where cargo puts what a profile builds.
directory_of() { if [ "$1" = dev ]; then echo debug; else echo "$1"; fi; }

sha() { sha256sum "$1" | cut -d' ' -f1; }

# blob FILE: moves it to where the archive wants it, and prints its digest and size.
blob() {
  local digest size
  digest=$(sha "$1") size=$(stat -c %s "$1")
  mv "$1" "$image/blobs/sha256/$digest"
  echo "$digest $size"
}

# image NAME BINARY: one layer with the binary and the names of its user; the same bytes from the same binary.
image() {
  local name=$1 binary=$2 reference=strongroom/$1:$tag
  local tree=$work/$name/tree
  image=$work/$name/image
  mkdir -p "$tree/etc" "$image/blobs/sha256"
  install -m 0755 "$binary" "$tree/strongroom-$name"
  echo "strongroom:x:65532:65532::/:/nologin" >"$tree/etc/passwd"
  echo "strongroom:x:65532:" >"$tree/etc/group"
  chmod 0755 "$tree" "$tree/etc"
  chmod 0644 "$tree"/etc/*
  "$tar" -C "$tree" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -cf "$work/layer.tar" etc "strongroom-$name"
  local diff layer layer_size config config_size manifest manifest_size
  diff=$(sha "$work/layer.tar")
  gzip -n -6 "$work/layer.tar"
  read -r layer layer_size < <(blob "$work/layer.tar.gz")
  cat >"$work/config" <<J
{"architecture":"$architecture","os":"linux","created":"1970-01-01T00:00:00Z","config":{"User":"65532:65532","Entrypoint":["/strongroom-$name"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:$diff"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"deploy/build-images.sh"}]}
J
  read -r config config_size < <(blob "$work/config")
  cat >"$work/manifest" <<J
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
J
  read -r manifest manifest_size < <(blob "$work/manifest")
  echo '{"imageLayoutVersion":"1.0.0"}' >"$image/oci-layout"
  cat >"$image/index.json" <<J
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,"platform":{"architecture":"$architecture","os":"linux"},"annotations":{"io.containerd.image.name":"docker.io/$reference","org.opencontainers.image.ref.name":"$tag"}}]}
J
  # What older versions of Docker read instead of the index.
  cat >"$image/manifest.json" <<J
[{"Config":"blobs/sha256/$config","RepoTags":["$reference"],"Layers":["blobs/sha256/$layer"]}]
J
  "$tar" -C "$image" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -cf "$out/$name.tar" .
  echo "$reference sha256:$manifest $((layer_size / 1024)) KiB compressed, $(($(stat -c %s "$binary") / 1024)) KiB binary"
}

IFS=, read -ra wanted <<<"$names"
plain=()
for name in "${wanted[@]}"; do
  case $name in
    agent) ;;
    server | injector) plain+=(-p "strongroom-$name" --bin "strongroom-$name") ;;
    *) fail "no image is called $name; there are server, injector and agent" ;;
  esac
done
profile=${PROFILE:-release} agent_profile=${AGENT_PROFILE:-agent}
if [ ${#plain[@]} -gt 0 ]; then
  (cd "$root" && cargo build --locked --profile "$profile" --target "$target" "${plain[@]}")
fi
case ,$names, in
  # By itself, so that no other crate's features end up in it.
  *,agent,*) (cd "$root" && cargo build --locked --profile "$agent_profile" --target "$target" -p strongroom-agent --bin strongroom-agent) ;;
esac
for name in "${wanted[@]}"; do
  built=$profile
  [ "$name" != agent ] || built=$agent_profile
  image "$name" "$target_directory/$target/$(directory_of "$built")/strongroom-$name"
  case $load in
    ctr) ctr -a "${CONTAINERD_SOCKET:-/run/containerd/containerd.sock}" -n k8s.io images import "$out/$name.tar" >/dev/null ;;
    kind) kind load image-archive --name "${KIND_CLUSTER:-kind}" "$out/$name.tar" ;;
    docker) docker load --input "$out/$name.tar" ;;
  esac
done
