#!/usr/bin/env python3
"""cri.py HANDLER SOCKET DIR PATIENCE: what a kubelet asks of containerd, and its effects.

Prints VERDICT<tab>TITLE<tab>WHY, one line a check.
"""
import os
import sys
import time
import urllib.request

import api_pb2 as cri
import api_pb2_grpc
import grpc

handler, socket, directory, patience = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
runtime = api_pb2_grpc.RuntimeServiceStub(grpc.insecure_channel("unix://" + socket))
logs = directory + "/logs"
NODE, POD, OWN, TARGET = cri.NODE, cri.POD, cri.CONTAINER, cri.TARGET


def ask(method, **fields):
    request = getattr(cri, method + "Request")(**fields)
    return getattr(runtime, method)(request, timeout=60 * patience)


class Pod:
    """A pod sandbox, and how containers come to be in it."""

    count = 0

    def __init__(self, network=NODE, pid=OWN, privileged=False, sysctls=None, users=None):
        Pod.count += 1
        name = "%s%d" % (handler, Pod.count)
        self.parent = "/engines.slice/engines-%s.slice" % name if handler == "systemd" else "/engines/" + name
        self.namespaces = {"network": network, "pid": pid}
        if users:
            self.namespaces["userns_options"] = {"mode": POD, "uids": users, "gids": users}
        self.config = cri.PodSandboxConfig(
            metadata={"name": name, "uid": name, "namespace": "default"}, log_directory=logs,
            hostname="" if network == NODE else name,
            linux={"cgroup_parent": self.parent, "sysctls": sysctls or {},
                   "security_context": {"namespace_options": self.namespaces, "privileged": privileged}})
        self.id = ask("RunPodSandbox", config=self.config, runtime_handler=handler).pod_sandbox_id

    def status(self):
        return ask("PodSandboxStatus", pod_sandbox_id=self.id).status

    def container(self, name, *command, resources=None, security=None, **more):
        security = dict({"namespace_options": self.namespaces}, **(security or {}))
        config = cri.ContainerConfig(
            metadata={"name": name}, image={"image": "localhost/box:latest"}, command=command, log_path=name + handler,
            linux={"resources": resources or {}, "security_context": security}, **more)
        return Container(ask("CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config).container_id)

    def stop(self):
        ask("StopPodSandbox", pod_sandbox_id=self.id)


class Container:
    def __init__(self, name):
        self.id = name
        ask("StartContainer", container_id=self.id)

    def run(self, *command, timeout=0):
        return ask("ExecSync", container_id=self.id, cmd=command, timeout=timeout or 60 * patience)

    def says(self, script):
        result = self.run("sh", "-c", script)
        return (result.stdout + result.stderr).decode().split()

    def status(self):
        return ask("ContainerStatus", container_id=self.id).status

    def end(self):
        return until(lambda: self.status() if self.status().state == cri.CONTAINER_EXITED else None)

    def stop(self, timeout):
        ask("StopContainer", container_id=self.id, timeout=timeout)
        return self.end().exit_code


def until(probe):
    for _ in range(100 * patience):
        got = probe()
        if got:
            return got
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def equal(got, want):
    assert got == want, "got %r, want %r" % (got, want)


def refused(what, words):
    try:
        what()
    except grpc.RpcError as error:
        assert words in error.details().lower(), error.details()
    else:
        raise AssertionError("was not refused")


def check(title):
    def run(body):
        why, verdict = "", "ok"
        try:
            body()
        except Exception as error:  # the other checks go on
            verdict, why = "not ok", error.details() if isinstance(error, grpc.RpcError) else repr(error)
        print(verdict, title, " ".join(why.split())[:600], sep="\t", flush=True)
    return run


made = {}
MIB = 1 << 20


@check("a pod is made by the handler")
def _():
    made["pod"] = Pod(sysctls={"kernel.msgmax": "9999"})
    status = made["pod"].status()
    equal((status.state, status.runtime_handler), (cri.SANDBOX_READY, handler))


@check("a container, and exec in it: output, errors, status")
def _():
    script = "echo out; echo err >&2; trap 'exit 5' TERM; sleep 10000 & wait"
    made["main"] = made["pod"].container(
        "main", "sh", "-c", script, envs=[{"key": "A", "value": "b"}], working_dir="/tmp",
        resources={"memory_limit_in_bytes": 64 * MIB, "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512, "oom_score_adj": 900})
    result = made["main"].run("sh", "-c", "echo $A; pwd; echo e >&2; exit 3")
    equal((result.stdout, result.stderr, result.exit_code), (b"b\n/tmp\n", b"e\n", 3))


@check("memory, cpu, oom_score_adj and sysctl")
def _():
    equal(made["main"].says("cd /sys/fs/cgroup; cat memory.max cpu.max /proc/sys/kernel/msgmax /proc/1/oom_score_adj"),
          ["67108864", "50000", "100000", "9999", "900"])


@check("the cgroup lies in the pod's")
def _():
    leaf = "cri-containerd-%s.scope" if handler == "systemd" else "%s"
    group = "/sys/fs/cgroup" + made["pod"].parent + "/" + leaf % made["main"].id
    inside = [pid for at, _, _ in os.walk(group) for pid in open(at + "/cgroup.procs").read().split()]
    assert inside, group + " is empty"


@check("the log tells output from errors")
def _():
    text = open(logs + "/main" + handler).read()
    assert " stdout F out\n" in text and " stderr F err\n" in text, text


@check("exec is ended after its time")
def _():
    refused(lambda: made["main"].run("sleep", "4321", timeout=1), "timeout")
    until(lambda: "4321" not in made["main"].says("ps"))


@check("update of resources")
def _():
    ask("UpdateContainerResources", container_id=made["main"].id,
        linux={"memory_limit_in_bytes": 96 * MIB, "cpu_period": 100000, "cpu_quota": 25000})
    equal(made["main"].says("cd /sys/fs/cgroup; cat memory.max cpu.max"), ["100663296", "25000", "100000"])


@check("stats of a container")
def _():
    def used():
        return ask("ContainerStats", container_id=made["main"].id).stats
    first = used()
    assert first.memory.working_set_bytes.value > 0 and first.cpu.usage_core_nano_seconds.value > 0, first
    until(lambda: used().cpu.usage_core_nano_seconds.value > first.cpu.usage_core_nano_seconds.value)


@check("stats of a pod")
def _():
    part = ask("PodSandboxStats", pod_sandbox_id=made["pod"].id).stats.linux
    assert part.memory.working_set_bytes.value > 0 and len(part.containers) == 1, part


@check("stop: the handler's status")
def _():
    equal(made["main"].stop(60 * patience), 5)


@check("stop: killed after its time")
def _():
    equal(made["pod"].container("deaf", "sh", "-c", "sleep 10000").stop(1), 137)


@check("a security context")
def _():
    one = made["pod"].container("secure", "sleep", "1000", security={
        "run_as_user": {"value": 1234}, "run_as_group": {"value": 5678}, "supplemental_groups": [77], "readonly_rootfs": True,
        "no_new_privs": True, "capabilities": {"drop_capabilities": ["ALL"]},
        "seccomp": {"profile_type": cri.SecurityProfile.RuntimeDefault},
        "masked_paths": ["/proc/version"], "readonly_paths": ["/proc/sys"]})
    said = one.says("id -u; id -G; awk '/CapBnd|NoNewPrivs|Seccomp:/{print $2}' /proc/self/status; wc -c </proc/version; touch /tmp/x")
    equal(said[:7], "1234 5678 77 0000000000000000 1 2 0".split())
    assert "Read-only" in said, said


@check("added capabilities")
def _():
    one = made["pod"].container("able", "sleep", "1000", security={"capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_ADMIN"]}})
    equal(one.says("awk '/CapEff/{print $2}' /proc/self/status"), ["0000000000001000"])


@check("mounts, and a device")
def _():
    os.makedirs(directory + "/shared", exist_ok=True)
    open(directory + "/shared/file", "w").write("outside\n")
    one = made["pod"].container(
        "mounts", "sleep", "1000", devices=[{"container_path": "/dev/other", "host_path": "/dev/vda", "permissions": "r"}],
        mounts=[{"container_path": "/ro", "host_path": directory + "/shared", "readonly": True},
                {"container_path": "/rw", "host_path": directory + "/shared"}])
    equal(one.says("cat /ro/file; echo inside >/rw/new; head -c 1 /dev/other | wc -c; (: >>/dev/other) 2>/dev/null || echo refused"),
          ["outside", "1", "refused"])
    equal(open(directory + "/shared/new").read(), "inside\n")
    equal(one.run("touch", "/ro/x").exit_code, 1)


@check("a terminal")
def _():
    one = made["pod"].container("tty", "sh", "-c", "test -t 0 && echo a terminal; sleep 1000", tty=True)
    until(lambda: "a terminal" in open(logs + "/tty" + handler).read())
    equal(one.run("true").exit_code, 0)


@check("a privileged container")
def _():
    one = Pod(privileged=True).container("mighty", "sleep", "1000", security={"privileged": True})
    said = one.says("awk '/CapEff/{print $2}' /proc/self/status; test -c /dev/kmsg && echo device; mkdir /m && mount -t tmpfs x /m && echo mounted")
    full = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd")]
    equal(said, full + ["device", "mounted"])


@check("a pid namespace of the pod's")
def _():
    pod = Pod(pid=POD)
    pod.container("first", "sleep", "4444")
    second = pod.container("second", "sleep", "1000")
    assert "4444" in second.says("ps"), second.says("ps")


@check("pid namespaces of their own, ipc shared")
def _():
    first, second = (made["pod"].container(name, "sleep", "5555") for name in ("one", "two"))
    a, b = (each.says("readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; cat /proc/1/comm") for each in (first, second))
    assert a[0] != b[0] and a[1:] == b[1:] and a[2] == "sleep", (a, b)
    made["one"] = first


@check("a container in the pid namespace of another")
def _():
    debug = made["pod"].container("debug", "sleep", "1000", security={
        "namespace_options": {"network": NODE, "pid": TARGET, "target_id": made["one"].id}})
    assert "5555" in debug.says("ps"), debug.says("ps")


@check("a network of the pod's own")
def _():
    pod = made["net"] = Pod(network=POD)
    pod.container("web", "sh", "-c", "mkdir /www; echo page >/www/index.html; exec httpd -f -p 8080 -h /www")
    address = pod.status().network.ip
    equal(address, "10.99.0.2")

    def page():
        try:
            return urllib.request.urlopen("http://%s:8080/" % address, timeout=5 * patience).read()
        except OSError:
            return None
    equal(until(page), b"page\n")
    equal(pod.container("name", "sleep", "1000").says("hostname"), [pod.config.hostname])
    pod.stop()


@check("a user namespace of the pod's")
def _():
    pod = Pod(network=POD, users=[{"host_id": 200000, "container_id": 0, "length": 65536}])
    one = pod.container("mapped", "sleep", "1000")
    equal(one.says("cat /proc/self/uid_map; id -u; stat -c %u /bin/busybox"), ["0", "200000", "65536", "0", "0"])
    pod.stop()


@check("out of memory is told as the reason")
def _():
    status = made["pod"].container(
        "eater", "sh", "-c", "tail /dev/zero; sleep 1; exit 137",
        resources={"memory_limit_in_bytes": 32 * MIB, "memory_swap_limit_in_bytes": 32 * MIB}).end()
    equal((status.exit_code, status.reason), (137, "OOMKilled"))


@check("a missing command is refused")
def _():
    refused(lambda: made["pod"].container("bad", "/missing"), "no such file or directory")


@check("removed pods leave nothing")
def _():
    for pod in ask("ListPodSandbox").items:
        ask("StopPodSandbox", pod_sandbox_id=pod.id)
        ask("RemovePodSandbox", pod_sandbox_id=pod.id)
    equal(len(ask("ListContainers").containers), 0)
    left = [name for name in os.listdir("/run/containerd/runc/k8s.io") if not name.startswith(".")]
    left += [name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names if "cri-containerd" in name or made["main"].id in name]
    equal(left, [])
