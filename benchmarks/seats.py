"""A room on one server: what a seat costs, and what it feels like when all turn at once.

python benchmarks/seats.py [--seats 1 5 10] [--moves 20] [--pause 2]

Starts one JupyterLab server and as many kernels as there are seats, each behind a websocket of its
own, as a browser has. Every learner opens a panel and then moves the slider of a real training step
every few seconds (the pause, drawn between half and one and a half of it). Times are from the
message that asks to the message that the kernel is idle again; memory is the share of a process
(PSS: pages that several kernels share are counted once).
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import websocket

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

from real_lab import TOKEN, Lab  # noqa: E402

OPEN = """
from labkit import Bench, Panel
from labkit.failures import exploding_logvar
bench = Bench(exploding_logvar)
bench.turn("broken")
display(Panel(bench))
"""
MOVE = "bench.turn(shift={shift:.1f})"
LIMIT = 300  # seconds that one cell may take


@dataclass
class Seat:
    """One learner: a kernel, the line to it, and how long everything took."""

    number: int
    kernel: str
    line: websocket.WebSocket
    opened: float = 0.0
    moves: list[float] = field(default_factory=list)

    def run(self, code: str) -> float:
        """Run a cell; seconds until the kernel is idle again."""
        sent = message(code)
        start = time.perf_counter()
        self.line.send(json.dumps(sent))
        while True:
            told = json.loads(self.line.recv())
            if told.get("parent_header", {}).get("msg_id") != sent["header"]["msg_id"]:
                continue
            if told["msg_type"] == "error":
                raise RuntimeError(f"seat {self.number}: {told['content']['evalue']}")
            if told["msg_type"] == "status" and told["content"]["execution_state"] == "idle":
                return time.perf_counter() - start

    def learn(self, moves: int, pause: float) -> None:
        """Open the panel, then move the slider and look at it."""
        dice = random.Random(self.number)
        self.opened = self.run(OPEN)
        for _ in range(moves):
            time.sleep(pause * dice.uniform(0.5, 1.5))
            self.moves.append(self.run(MOVE.format(shift=dice.randrange(-40, 400) / 2)))


def message(code: str) -> dict:
    """An execute request of the Jupyter protocol, version 5.3."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "username": "learner",
        "session": uuid.uuid4().hex,
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    parts = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    return parts | {"channel": "shell", "buffers": []}


def ask(lab: Lab, path: str, method: str = "GET") -> dict | None:
    """One call of the server's REST interface."""
    request = urllib.request.Request(f"http://127.0.0.1:{lab.port}/api/{path}", method=method)
    request.add_header("Authorization", f"token {TOKEN}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        body = answer.read()
    return json.loads(body) if body else None


def sit_down(lab: Lab, number: int) -> Seat:
    """Start a kernel and open the line to it."""
    kernel = ask(lab, "kernels", "POST")["id"]
    address = f"ws://127.0.0.1:{lab.port}/api/kernels/{kernel}/channels"
    header = [f"Authorization: token {TOKEN}"]
    return Seat(number, kernel, websocket.create_connection(address, timeout=LIMIT, header=header))


def room(lab: Lab, seats: int, moves: int, pause: float) -> dict[str, float]:
    """All seats at once."""
    server = psutil.Process(lab.process.pid)
    taken = [sit_down(lab, number) for number in range(seats)]
    threads = [threading.Thread(target=seat.learn, args=(moves, pause)) for seat in taken]
    before, start = processor_seconds(server), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent, passed = processor_seconds(server) - before, time.perf_counter() - start
    shares = [process.memory_full_info().pss / 2**20 for process in server.children(True)]
    kernels = sorted(share for share in shares if share > 50)  # not the shells in between
    own = server.memory_full_info().pss / 2**20
    for seat in taken:
        seat.line.close()
        ask(lab, f"kernels/{seat.kernel}", "DELETE")
    every = sorted(move for seat in taken for move in seat.moves)
    if len(every) != seats * moves:
        raise SystemExit(f"{seats * moves - len(every)} moves are missing: a seat broke down")
    return {
        "to open, s": max(seat.opened for seat in taken),
        "a move, ms": 1e3 * statistics.median(every),
        "p95, ms": 1e3 * every[max(0, round(0.95 * len(every)) - 1)],
        "CPU a move, ms": 1e3 * spent / len(every),
        "cores busy": spent / passed,
        "MB a seat": statistics.median(kernels),
        "MB server": own,
    }


def processor_seconds(process: psutil.Process) -> float:
    """What a process and all its children have used so far."""
    return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))


def main() -> None:
    """One line for each size of the room."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seats", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two moves")
    asked = parser.parse_args()
    load = psutil.getloadavg()[0]
    print(f"{psutil.cpu_count()} cores, load {load:.1f} before; CPU a move contains the opening")
    for place, seats in enumerate(asked.seats):
        with tempfile.TemporaryDirectory() as folder:
            lab = Lab(Path(folder) / "lab")
            try:
                found = room(lab, seats, asked.moves, asked.pause)
            finally:
                lab.close()
        if not place:
            print(f"{'seats':>6}" + "".join(f"{name:>16}" for name in found))
        print(f"{seats:>6}" + "".join(f"{value:>16.1f}" for value in found.values()), flush=True)


if __name__ == "__main__":
    main()
