"""Runs one program that nobody has read. A script of its own, standard library only: `python -I -S jail.py CONFIG`.

    caller ── jail (this process: wall clock) ── keeper (new namespaces) ── runner (process 1 in them: the program)

Standard input is the job for the runner: {"program": str, "token": str}. It writes its verdict to standard output.
Exit codes: 0 the runner ended by itself, 124 the time was up, 125 the jail could not be built (reason on standard
error), 128 + n the runner was killed by signal n.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
from typing import Any, NoReturn

TIME_IS_UP, CANNOT_BUILD, KILLED = 124, 125, 128
NOBODY = 65534

# CLONE_NEWUSER, NEWNET, NEWPID, NEWNS, NEWIPC, NEWUTS
_NEW_NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000 | 0x00020000 | 0x08000000 | 0x04000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 8192, 16384, 1 << 18
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID = 1, 2
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38

# what a Python needs besides its own folder; the rest of the file system, /proc and /home too, is not there
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_DEVICES = ("null", "zero", "random", "urandom")

RUNNER = '''
import json, os, sys, types

def run():
    verdict, pid = os.dup(1), os.getpid()
    job = json.loads(sys.stdin.buffer.read())
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    module = sys.modules["program"] = types.ModuleType("program")
    report = {"token": job.pop("token"), "status": "passed", "detail": ""}
    try:
        exec(compile(job["program"], "program.py", "exec"), module.__dict__)
    except BaseException as error:
        report["status"], report["detail"] = "failed", f"{type(error).__name__}: {error}"[:500]
    if os.getpid() == pid:  # not a child of the program
        os.write(verdict, json.dumps(report).encode())
    os._exit(0)

run()
'''

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(_libc.mount(*arguments), f"mount {target}")


def _make_read_only(path: str, *, recursive: bool) -> None:
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)  # set, clear, propagation, user namespace
    flags = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR), _AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), size
    )
    _check(result, f"mount_setattr {path}")


def main() -> int:
    config = json.loads(sys.argv[1])
    _die_with(config["caller"])
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # without namespaces, what the program leaves behind comes to this process
    try:
        keeper = _start_in_namespaces(config) if config["namespaces"] else _start_with_limits(config)
    except OSError as error:
        _refuse(error)
    return _watch(keeper, config["wall_seconds"])


def _die_with(parent: int) -> None:
    """The kernel tells of a death from now on; one before now shows in the parent's number."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(CANNOT_BUILD)


def _watch(child: int, wall_seconds: float) -> int:
    ended, _, _ = select.select([os.pidfd_open(child)], [], [], wall_seconds)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _kill_descendants()
    if not ended:
        return TIME_IS_UP
    return KILLED + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _kill_descendants() -> None:
    """Killing one hands its children to this process, so the loop ends when there are none."""
    while True:
        try:
            with open("/proc/thread-self/children") as file:
                children = [int(pid) for pid in file.read().split()]
        except FileNotFoundError:
            return
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not children:
            return


def _start_with_limits(config: dict[str, Any]) -> int:
    jail = os.getpid()
    child = os.fork()
    if child:
        return child
    _die_with(jail)
    try:
        os.chdir(config["directory"])
        _become_runner(config)
    except OSError as error:
        _refuse(error)


def _start_in_namespaces(config: dict[str, Any]) -> int:
    """Only a process outside may say which users there are inside: hence the two pipes."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setgroups([])
    unshared, mapped = os.pipe(), os.pipe()
    jail = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        _die_with(jail)
        _keep(config, unshared, mapped)
    os.close(unshared[1])
    if os.read(unshared[0], 1):
        _map_ids(keeper, is_root)
        os.write(mapped[1], b"1")
    for fd in (unshared[0], *mapped):
        os.close(fd)
    return keeper


def _map_ids(pid: int, is_root: bool) -> None:
    if not is_root:
        _write(f"/proc/{pid}/setgroups", "deny")
    for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        _write(f"/proc/{pid}/{name}", f"0 0 1\n{NOBODY} {NOBODY} 1\n" if is_root else f"{NOBODY} {own} 1\n")


def _keep(config: dict[str, Any], unshared: tuple[int, int], mapped: tuple[int, int]) -> NoReturn:
    try:
        _check(_libc.unshare(_NEW_NAMESPACES), "unshare")
        os.close(mapped[1])
        os.write(unshared[1], b"1")
        if not os.read(mapped[0], 1):
            raise OSError(0, "the users of the namespace could not be named")
        runner = os.fork()
        if runner == 0:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setsid()  # a signal to its process group must not reach this one
            _build_root(config)
            _become_runner(config)
        _, status = os.waitpid(runner, 0)
        os._exit(KILLED + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    os.write(2, f"{error.filename or ''} {error.strerror}".strip().encode())
    os._exit(CANNOT_BUILD)


def _build_root(config: dict[str, Any]) -> None:
    """A file system of its own: Python and the libraries to read, /tmp to write, nothing else."""
    root = config["directory"]
    os.umask(0o022)
    with contextlib.suppress(OSError):  # where /proc is read-only both stay as they are
        _write("/proc/self/oom_score_adj", "1000")  # what the caller runs is worth more
        _write("/proc/sys/user/max_user_namespaces", "0")  # of this namespace: no further ones inside
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    for path in (config["python_prefix"], *_LIBRARIES):
        _show(path, root)
    os.mkdir(root + "/dev")
    for name in _DEVICES:
        _write(f"{root}/dev/{name}", "")
        _mount(f"/dev/{name}", f"{root}/dev/{name}", None, _MS_BIND)
    os.mkdir(root + "/tmp")
    _mount("tmpfs", root + "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={config['disk_bytes']},mode=1777")
    _make_read_only(root, recursive=False)
    os.chdir(root)
    _mount(root, "/", None, _MS_MOVE)
    os.chroot(".")
    os.chdir("/tmp")


def _show(path: str, root: str) -> None:
    target = root + path
    if os.path.lexists(target) or not os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        _write(target, "")
    _mount(path, target, None, _MS_BIND | _MS_REC)
    _make_read_only(target, recursive=True)


def _become_runner(config: dict[str, Any]) -> NoReturn:
    """The new program keeps no capability: its user is nobody, or the caller's own outside of namespaces."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # again: a change of user clears it
    for name, value in config["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    os.execve(config["python"], [config["python"], "-I", "-S", "-B", "-c", RUNNER], dict(os.environ))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
