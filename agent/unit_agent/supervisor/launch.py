"""Starting one command: user, limits, directory, pipes, exec; a failure has systemd's exit code and a message."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OOM_SCORE = "/proc/self/oom_score_adj"

# systemd.exec(5), "Process Exit Codes"
CHDIR, EXEC, STDIN, LIMITS, GROUP, USER, CGROUP = 200, 203, 208, 205, 216, 217, 219


class Failed(Exception):
    """A step before the program ran failed; the child exits with `code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def spawn(
    service: dict[str, Any],
    command: dict[str, Any],
    words: list[str],
    environment: dict[str, str],
    output: tuple[int, int],
    enter: Callable[[], None] | None = None,
) -> tuple[int, int]:
    """Fork a session of its own for `words`; returns its pid, and a pipe that ends once its program runs.

    `enter` takes it into its control groups. What the pipe brings before its end is why the program could not be
    run.
    """
    reader, writer = os.pipe()
    # until the child has let go of our handlers, a signal to it would be taken for one to us, and be lost
    before = _signal.pthread_sigmask(_signal.SIG_SETMASK, _signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _run(service, command, words, environment, output, enter, writer)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    os.close(writer)
    os.set_blocking(reader, False)
    return pid, reader


def _run(
    service: dict[str, Any],
    command: dict[str, Any],
    words: list[str],
    environment: dict[str, str],
    output: tuple[int, int],
    enter: Callable[[], None] | None,
    writer: int,
) -> NoReturn:
    code, message = EXEC, ""
    try:
        os.setsid()
        os.umask(0o022)
        _reset_signals()
        _let_go_of_protection()
        if enter is not None:
            join(enter)
        _wire(output)
        become(service, command, words, environment)
    except Failed as failure:
        code, message = failure.code, failure.message
    except OSError as error:
        message = f"cannot start {words[0]}: {error.strerror}"
    finally:
        try:
            os.write(writer, message.encode(errors="replace")[:4000])
        finally:
            os._exit(code)


def join(enter: Callable[[], None]) -> None:
    """Enter the unit's control groups; raises `Failed` where its limits would not hold."""
    try:
        enter()
    except OSError as error:
        raise Failed(CGROUP, f"cannot enter its cgroup {error.filename}: {error.strerror}") from error


def _reset_signals() -> None:
    _signal.set_wakeup_fd(-1)
    for number in range(1, _signal.NSIG):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL, SIGSTOP and those of the C library
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)  # systemd's IgnoreSIGPIPE=yes
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _let_go_of_protection() -> None:
    """Be as likely a victim as others when the host's memory ends: it is the agent who is kept till last."""
    try:
        with open(OOM_SCORE) as file:
            protected = int(file.read()) < 0
        if protected:
            with open(OOM_SCORE, "w") as file:
                file.write("0")
    except (OSError, ValueError):
        pass  # no reason not to start


def _wire(output: tuple[int, int]) -> None:
    try:
        empty = os.open("/dev/null", os.O_RDONLY)
    except OSError as error:
        raise Failed(STDIN, f"cannot open /dev/null: {error.strerror}") from error
    for file, number in ((empty, 0), (output[0], 1), (output[1], 2)):
        os.dup2(file, number, inheritable=True)


def become(
    service: dict[str, Any], command: dict[str, Any], words: list[str], environment: dict[str, str]
) -> NoReturn:
    """Turn this process into the command: its account, limits and directory first; raises `Failed`."""
    account = None
    if (service["user"] or service["group"]) and not command["privileged"]:
        account = _Account(service["user"], service["group"])
    if account is not None:
        environment = account.environment | environment
    for name, limit in service["limits"]:
        _limit(name, limit)
    if account is not None:
        account.enter()
    _change_directory(service, account)
    program = _find(words[0])
    argv = [command["argv0"] or words[0], *words[1:]]
    try:
        os.execve(program, argv, environment)
    except OSError as error:
        why = error.strerror
        if isinstance(error, FileNotFoundError) and os.path.exists(program):
            why = "the interpreter it names does not exist"
        raise Failed(EXEC, f"cannot execute {program}: {why}") from error
    except ValueError as error:
        raise Failed(EXEC, f"cannot execute {program}: {error}") from error


def _find(program: str) -> str:
    if "/" in program:
        return program
    for directory in DEFAULT_PATH.split(":"):
        if os.access(f"{directory}/{program}", os.X_OK):
            return f"{directory}/{program}"
    raise Failed(EXEC, f"cannot execute {program}: it is not in {DEFAULT_PATH}")


def _limit(name: str, limit: dict[str, int | None]) -> None:
    import resource

    kind = getattr(resource, f"RLIMIT_{name}")
    soft, hard = (resource.RLIM_INFINITY if value is None else value for value in (limit["soft"], limit["hard"]))
    try:
        resource.setrlimit(kind, (soft, hard))
    except (OSError, ValueError) as error:
        raise Failed(LIMITS, f"cannot set Limit{name}={limit['soft']}:{limit['hard']}: {error}") from error


def _change_directory(service: dict[str, Any], account: _Account | None) -> None:
    wanted = service["working_directory"] or "/"
    if wanted == "~":
        wanted = account.home if account is not None and account.home else os.environ.get("HOME", "/")
    try:
        os.chdir(wanted)
    except OSError as error:
        if not service["working_directory_optional"]:
            raise Failed(CHDIR, f"cannot enter WorkingDirectory={wanted}: {error.strerror}") from error
        os.chdir("/")


class _Account:
    """Who User= and Group= say to be. Looked up in the child: name services may load half a library each."""

    def __init__(self, user: str, group: str) -> None:
        import grp
        import pwd

        self.environment: dict[str, str] = {}
        self.home = ""
        self._uid = self._gid = -1
        self._name = ""
        if user:
            try:
                entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
            except KeyError:
                raise Failed(USER, f"cannot switch to User={user}: no such user") from None
            self._uid, self._gid, self._name, self.home = entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir
            shell = entry.pw_shell or "/bin/sh"
            self.environment = {"HOME": self.home, "USER": self._name, "LOGNAME": self._name, "SHELL": shell}
        if group:
            try:
                self._gid = grp.getgrgid(int(group)).gr_gid if group.isdigit() else grp.getgrnam(group).gr_gid
            except KeyError:
                raise Failed(GROUP, f"cannot switch to Group={group}: no such group") from None

    def enter(self) -> None:
        """Become that user and group, unless it is who we are; its output then opens as /dev/stdout too."""
        if os.geteuid() == 0:
            for file in (1, 2):
                os.fchown(file, self._uid, self._gid)
        if self._gid >= 0 and (os.geteuid() == 0 or self._gid != os.getegid()):
            try:
                os.initgroups(self._name, self._gid) if self._name else os.setgroups([self._gid])
                os.setgid(self._gid)
            except OSError as error:
                raise Failed(GROUP, f"cannot switch to group {self._gid}: {error.strerror}") from error
        if self._uid >= 0 and self._uid != os.geteuid():
            try:
                os.setuid(self._uid)
            except OSError as error:
                raise Failed(USER, f"cannot switch to User={self._name}: {error.strerror}") from error
