"""Fetching lists of addresses: requests a second, success and memory, beside img2dataset on the same server.

    python -m benchmarks.urls                                             # ours
    python -m benchmarks.urls --img2dataset /path/of/a/venv/bin/img2dataset    # both, in turns

The server is a process of its own on loopback and delays every answer; 256 addresses of 127.0.0.0/16 are its hosts. It
measures the rate itself, from the first request for a picture to the last, so starting a program does not count. Both
programs get one process and 64 connections, robots.txt included for ours. Server and client share the machine's cores.

Cases: latencies of 0, 50 and 200 ms; a fifth of the addresses answers 503 the first time; one in 50 drips a byte a
second for ever (ended from outside after `--patience` seconds); memory of reading lists of 100,000 and a million rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from benchmarks.made_pictures import made_jpegs
from benchmarks.measure import record

HOSTS = [f"127.0.{number // 16}.{number % 16 + 1}" for number in range(256)]
CONNECTIONS = 64


class Server(asyncio.Protocol):
    """Answers `/ok/7`, `/once/7` (503 the first time), `/drip/7` and `/stats`."""

    latency = 0.0
    picture = b""
    asked: ClassVar[Counter[str]] = Counter()
    first = last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if path == "/stats":
                self.answer(200, json.dumps([Server.asked.total(), Server.last - Server.first]).encode())
            elif path == "/robots.txt":
                self.later(404, b"")
            else:
                Server.last = time.monotonic()
                Server.first = Server.first or Server.last
                Server.asked[path] += 1
                if path.startswith("/drip"):
                    self.drip()
                else:
                    again = path.startswith("/once") and Server.asked[path] == 1
                    self.later(503 if again else 200, b"" if again else Server.picture)

    def later(self, status: int, body: bytes) -> None:
        if Server.latency:
            asyncio.get_running_loop().call_later(Server.latency, self.answer, status, body)
        else:
            self.answer(status, body)

    def answer(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)

    def drip(self, start: bool = True) -> None:
        if start:
            self.transport.write(b"HTTP/1.1 200 x\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n")
        if not self.transport.is_closing():
            self.transport.write(b"\xff")
            asyncio.get_running_loop().call_later(1.0, self.drip, False)


async def serve(latency: float) -> None:
    Server.latency, Server.picture = latency, made_jpegs(1, 256, 192)[0]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, HOSTS[0], 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    others = await loop.create_server(Server, HOSTS[1:], port, backlog=4096)
    print(port, flush=True)
    await asyncio.gather(server.serve_forever(), others.serve_forever())


@contextmanager
def serving(latency: float) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.urls", "--serve", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def ours(path: Path, port: int, folder: Path, patience: float) -> int:
    """Download with this project; returns the number of good pictures."""
    code = (
        "import sys; from pathlib import Path\n"
        "from flame_core.data.sources.urls import Urls\n"
        "from flame_core.params import UrlsSource\n"
        "from flame_core.work import WorkCache\n"
        "path, port, work = sys.argv[1:]\n"
        "params = UrlsSource(kind='urls', path=path, allow=[f'127.0.0.0/8:{port}'], contact='benchmark')\n"
        "unit = Urls(params, Path(path)).download(WorkCache(Path(work), 'download'))\n"
        "print(unit.record.counts['pairs'])\n"
    )
    command = [sys.executable, "-c", code, str(path), str(port), str(folder)]
    done = subprocess.run(command, env={**os.environ, "FLAME_WORKERS": "1"}, capture_output=True, text=True, check=True)
    return int(done.stdout)


def theirs(program: Path, path: Path, folder: Path, patience: float, retries: int) -> int:
    """The same with img2dataset, which is ended after `patience` seconds."""
    command = [program, "--url_list", path, "--input_format", "tsv", "--url_col", "url", "--caption_col", "caption"]
    command += ["--output_folder", folder, "--output_format", "webdataset", "--resize_mode", "keep_ratio"]
    command += ["--image_size", "512", "--resize_only_if_bigger", "True", "--skip_reencode", "True"]  # decodes, as ours
    command += ["--processes_count", "1", "--thread_count", str(CONNECTIONS), "--retries", str(retries)]
    command += ["--number_sample_per_shard", "2000", "--enable_wandb", "False"]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
    good = 0
    for tar in folder.glob("*.tar"):
        try:
            with tarfile.open(tar) as file:
                good += sum(name.endswith(".jpg") for name in file.getnames())
        except tarfile.ReadError:
            continue  # unfinished
    return good


def measure(options: argparse.Namespace, latency: float, kinds: list[str], rows: int, case: str) -> None:
    """One case, for each program."""
    programs = {"ours": 0} | ({"img2dataset": 0} if options.img2dataset else {})
    if options.img2dataset and "once" in kinds:
        programs["img2dataset, retries 2"] = 2
    for name, retries in programs.items():
        with tempfile.TemporaryDirectory(prefix="urls-") as scratch, serving(latency) as port:
            path = Path(scratch) / "list.tsv"
            urls = [f"http://{HOSTS[n % 256]}:{port}/{kinds[n % len(kinds)]}/{n}" for n in range(rows)]
            path.write_text("url\tcaption\n" + "".join(f"{url}\tpicture {n}\n" for n, url in enumerate(urls)))
            start, used = time.monotonic(), processor()
            folder = Path(scratch) / "out"
            if name == "ours":
                good = ours(path, port, folder, options.patience)
            else:
                good = theirs(options.img2dataset, path, folder, options.patience, retries)
            wall, used = time.monotonic() - start, processor() - used
            with urlopen(f"http://{HOSTS[0]}:{port}/stats") as answer:
                asked, seconds = json.load(answer)
        said = f"{case}, {name}"
        record("urls", f"{said}, rate", asked / max(seconds, 1e-3), "requests/s")
        record("urls", f"{said}, success", 100 * good / rows, "%")
        record("urls", f"{said}, wall", wall, "s")
        record("urls", f"{said}, processor time", 1000 * used / rows, "ms per address")


def processor() -> float:
    """Processor seconds of processes that have ended; the server has not, while it is measured."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_memory(rows: int) -> None:
    """Peak memory of sorting a list, beyond that of the imports, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="urls-") as scratch:
        path = Path(scratch) / "list.tsv"
        with path.open("w") as file:
            file.write("url\tcaption\n")
            file.writelines(f"http://example.org/pictures/{n}.jpg\ta caption of some words, {n}\n" for n in range(rows))
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.urls", "--sort", str(path)], capture_output=True, text=True, check=True
        )
        record("urls", f"sorting a list of {rows:,} rows, memory", int(done.stdout) / 1e6, "MB")
        record("urls", f"sorting a list of {rows:,} rows", rows / (time.monotonic() - start), "rows/s")


def sort(path: Path) -> None:
    from flame_core.data.addresses.address_list import ListReader
    from flame_core.data.addresses.sorted_list import write_sorted
    from flame_core.params import UrlsSource

    params = UrlsSource(kind="urls", path=str(path))
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_sorted(path.parent, ListReader(params, [], path.parent).addresses([path]), None)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - imported) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img2dataset", type=Path, help="the program in an environment of its own")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--patience", type=float, default=120.0)
    parser.add_argument("--memory", type=int, nargs="*", default=[100_000, 1_000_000], help="rows of sorted lists")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--sort", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
    elif options.sort is not None:
        sort(options.sort)
    else:
        for latency in (0.0, 0.05, 0.2):
            measure(options, latency, ["ok"], options.rows, f"{latency * 1000:.0f} ms")
        measure(options, 0.05, ["ok"] * 4 + ["once"], options.rows, "a fifth fails once")
        measure(options, 0.05, ["ok"] * 49 + ["drip"], min(options.rows, 1000), "one in 50 drips")
        for rows in options.memory:
            measure_memory(rows)


if __name__ == "__main__":
    main()
