#!/usr/bin/env bash
# engines.sh ROOT: engines start when a check starts them; the user whose ids podman gives
# to automatic user namespaces; Python's stubs of Kubernetes' interface, in /usr/share/cri.
set -euo pipefail
root=$1
for unit in docker.service docker.socket containerd.service podman.service podman.socket \
    podman-restart.service podman-auto-update.service podman-auto-update.timer podman-clean-transient.service; do
    [ ! -e "$root/usr/lib/systemd/system/$unit" ] || systemctl -q --root="$root" disable "$unit"
done
for unit in podman.service podman.socket podman-restart.service podman-auto-update.timer; do
    [ ! -e "$root/usr/lib/systemd/user/$unit" ] || systemctl -q --root="$root" --global disable "$unit"
done
chroot "$root" useradd -r -M -s /usr/sbin/nologin containers
echo containers:2147483648:1048576 | tee -a "$root/etc/subuid" >>"$root/etc/subgid"
# No registry is reachable: say so at once.
mkdir -p "$root/etc/containers/registries.conf.d"
echo 'unqualified-search-registries = []' >"$root/etc/containers/registries.conf.d/vm.conf"

cri=$root/usr/share/cri part=$root/tmp/cri
mkdir -p "$cri" "$part"
apt() { apt-get -qq -o Dir="$root" -o Dir::State::status="$root/var/lib/dpkg/status" -o APT::Sandbox::User=root "$@"; }
# Installing it brings a hundred packages for Go.
(cd "$part" && apt update && apt download golang-github-kubernetes-cri-api-dev)
dpkg-deb -x "$part"/*.deb "$part"
# gogoproto only decorates Go's code.
sed /gogoproto/d "$part/usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto" >"$cri/api.proto"
rm -r "$part"
chroot "$root" python3 -m grpc_tools.protoc -I/usr/share/cri --python_out=/usr/share/cri \
    --grpc_python_out=/usr/share/cri /usr/share/cri/api.proto
