# SPDX-License-Identifier: Apache-2.0
"""`baton run` and ./demo.sh as a person meets them: on a terminal, in a pipe, and interrupted."""
import pty, select, signal, subprocess, time
from baton import *


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(p) for p in f.read().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def run(*arguments, seconds=60):
    return subprocess.run([BATON, "run", MODEL, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=seconds * SLOW)


def test_in_a_pipe_it_asks_answers_reports_and_exits():
    done = run()
    assert done.returncode == 0, done.stderr
    assert "\033" not in done.stdout, "escape codes in a pipe"
    contains(done.stdout, "prefill", "decode", "router", "The capital of France is Paris.", "37 computed by", "over shm in",
             "bytes of KV", "first token", "ms")


def test_a_prompt_of_ones_own_and_a_single_engine():
    apart = run("--prompt", "What is 2 + 2?")
    single = run("--prompt", "What is 2 + 2?", "--single")
    assert apart.returncode == single.returncode == 0, apart.stderr + single.stderr
    answer = apart.stdout.split(">>> What is 2 + 2?\n")[1].split("\n")[0]
    assert answer and answer == single.stdout.split(">>> What is 2 + 2?\n")[1].split("\n")[0]
    assert "hand-over" in apart.stdout and "hand-over" not in single.stdout


def test_wrong_use_says_what_to_type():
    for arguments, status, says in ((["run"], 2, "baton run smollm2"), (["run", "smollm3"], 1, "smollm2"),
                                    (["run", MODEL, "--promt", "x"], 2, "Did you mean --prompt?"),
                                    (["rum"], 2, "Did you mean `baton run `?".replace(" `?", "`?")), ([], 2, "Usage")):
        done = subprocess.run([BATON, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
        assert done.returncode == status, (arguments, done.stderr)
        contains(done.stderr, says)


class Terminal:
    """A person at a terminal."""

    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(command[0], command)
        self.text = ""

    def read_until(self, text, seconds=60):
        end = time.monotonic() + seconds * SLOW
        while text not in self.text:
            assert time.monotonic() < end, f"no '{text}' in: {self.text[-1500:]}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    break
        assert text in self.text, f"no '{text}' in: {self.text[-1500:]}"

    def type(self, text):
        self.text = ""
        os.write(self.fd, text.encode())

    def wait(self, seconds=15):
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("it does not end")


def test_on_a_terminal_it_goes_on_as_a_chat():
    t = Terminal(BATON, "run", MODEL)
    t.read_until("first token")
    contains(t.text, "\033[", "you ──▶ router")
    t.read_until(">>> ", 10)
    t.type("And of Italy?\n")
    t.read_until("hand-over")
    contains(t.text, "Rome")
    t.type("/bye\n")
    assert t.wait() == 0, t.text


def test_ctrl_c_leaves_no_process_behind():
    for moment in ("starting", "hand-over"):
        t = Terminal(BATON, "run", MODEL)
        t.read_until(moment)
        children = children_of(t.pid)
        assert children
        t.type("\x03")
        assert t.wait() == 130, t.text
        time.sleep(0.1)
        assert not [p for p in children if alive(p)]


def test_killed_with_9_it_leaves_no_process_behind_either():
    process = subprocess.Popen([BATON, "run", MODEL, "--prompt", "Tell me a very long story."], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    while ">>>" not in process.stdout.readline():
        pass
    children = children_of(process.pid)
    assert len(children) == 3
    process.kill()
    process.wait()
    end = time.monotonic() + 10 * SLOW
    while [p for p in children if alive(p)]:
        assert time.monotonic() < end
        time.sleep(0.05)


main()
