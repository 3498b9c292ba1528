"""How fast are CT images received: Preread, Orthanc and DCMTK storescp side by side.

The same sender, the same images, the same disk, interleaved repeats; prints
instances/s, MB/s (median and range) and ratios. Run: ``python benchmarks/receive.py``.

What is compared is not the same promise: Preread answers when file, folder and
ledger row are fsynced; Orthanc 1.10.1 calls fdatasync (16 times for 9 images
under strace), storescp syncs nothing. With one sender, storescu and a receiver
that does not acknowledge at once wait for TCP's delayed acknowledgement, about
40 ms an image: that row says more about TCP than about the receivers, and the
row with eight senders is the one to compare.
Orthanc listens on every interface: it is started in a network namespace of its
own, together with all senders, if that can be made (root, iproute2).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STORESCP, ORTHANC = Path("/usr/bin/storescp"), Path("/usr/sbin/Orthanc")
NAMESPACE = "preread-bench"
IN_NAMESPACE = "PREREAD_BENCH_IN_NAMESPACE"
ROWS = 512
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Load:
    senders: int
    images: int

    @property
    def total(self) -> int:
        return self.senders * self.images


LOADS = (Load(1, 200), Load(8, 50))


# -- the three receivers ----------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"receiver ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit("receiver does not listen")


def run_preread(folder: Path, port: int, processes: int) -> list[str]:
    return [
        sys.executable,
        __file__,
        "--serve",
        str(folder),
        "--port",
        str(port),
        "--processes",
        str(processes),
    ]


def run_storescp(folder: Path, port: int) -> list[str]:
    return [str(STORESCP), "--fork", "-aet", "PREREAD", "-pdu", "131072", "-od", str(folder), str(port)]


def run_orthanc(folder: Path, port: int) -> list[str]:
    settings = {
        "Name": "bench",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomPort": port,
        "DicomAet": "PREREAD",
        "HttpServerEnabled": False,
        "Plugins": [],
        "DicomAlwaysAllowStore": True,
        "DicomThreadsCount": 8,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    return [str(ORTHANC), str(path)]


@contextlib.contextmanager
def receiving(command: Callable[[Path, int], list[str]], disk: Path) -> Iterator[int]:
    folder = Path(tempfile.mkdtemp(dir=disk))
    port = free_port()
    process = subprocess.Popen(
        command(folder, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE
    )
    try:
        wait_until_listening(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def serve(folder: Path, port: int, processes: int) -> None:
    """Run Preread's receiving side alone, as a node does."""
    import logging
    import threading

    import structlog

    sys.path.insert(0, str(REPOSITORY))
    from dicom_node.intake import Intake
    from dicom_node.ledger import Ledger
    from dicom_node.scp import ScpSettings, StorageScp
    from dicom_node.storage import InstanceStore

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    ledger = Ledger.connect(f"sqlite:///{folder / 'ledger.db'}")
    ledger.migrate()
    store = InstanceStore(folder / "instances", min_free_bytes=0, min_free_fraction=0)
    scp = StorageScp(ScpSettings(port=port, receiver_processes=processes), Intake(store, ledger))
    scp.start()
    threading.Event().wait()


# -- the sender -------------------------------------------------------------------------------


def make_images(folder: Path, load: Load, repeat: int) -> list[Path]:
    """Write ``load.images`` CT images for each sender, UIDs distinct over the whole run."""
    import numpy as np
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    random = np.random.default_rng(repeat)
    folders = []
    for sender in range(load.senders):
        target = folder / f"{load.senders}-{repeat}-{sender}"
        target.mkdir(parents=True)
        study, series = generate_uid(), generate_uid()
        for number in range(load.images):
            image = FileDataset(None, {}, preamble=bytes(128), file_meta=FileMetaDataset())
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            image.StudyInstanceUID, image.SeriesInstanceUID = study, series
            image.PatientID, image.PatientName, image.Modality = "BENCH", "Bench^Mark", "CT"
            image.InstanceNumber, image.SamplesPerPixel, image.PhotometricInterpretation = (
                number,
                1,
                "MONOCHROME2",
            )
            image.Rows = image.Columns = ROWS
            image.BitsAllocated = image.BitsStored = 16
            image.HighBit, image.PixelRepresentation = 15, 0
            image.PixelData = random.integers(0, 4096, (ROWS, ROWS), dtype=np.uint16).tobytes()
            image.save_as(target / f"{number}.dcm", enforce_file_format=True)
        folders.append(target)
    return folders


def send(folders: list[Path], port: int) -> float:
    """Send each folder with a DCMTK storescu of its own; return the seconds until all are done."""
    command = ["/usr/bin/storescu", "-aet", "BENCH", "-aec", "PREREAD", "--max-send-pdu", "131072", "+sd"]
    started = time.perf_counter()
    senders = [
        subprocess.Popen(
            [*command, "127.0.0.1", str(port), str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise SystemExit(f"a sender failed: {codes}")
    return time.perf_counter() - started


# -- the comparison ---------------------------------------------------------------------------


def measure(repeats: int, disk: Path, processes: tuple[int, ...]) -> dict[tuple[str, Load], list[float]]:
    receivers: dict[str, Callable[[Path, int], list[str]]] = {
        f"Preread, {count} process{'es' if count > 1 else ''}": (
            lambda folder, port, count=count: run_preread(folder, port, count)
        )
        for count in processes
    }
    if STORESCP.exists():
        receivers["DCMTK storescp"] = run_storescp
    if ORTHANC.exists() and os.environ.get(IN_NAMESPACE):
        receivers["Orthanc"] = run_orthanc
    seconds: dict[tuple[str, Load], list[float]] = {}
    images = Path(tempfile.mkdtemp(dir=disk))
    try:
        for repeat in range(repeats):
            for load in LOADS:
                folders = make_images(images, load, repeat)
                for name, command in receivers.items():
                    with receiving(command, disk) as port:
                        seconds.setdefault((name, load), []).append(send(folders, port))
                shutil.rmtree(images)
    finally:
        shutil.rmtree(images, ignore_errors=True)
    return seconds


def report(seconds: dict[tuple[str, Load], list[float]]) -> None:
    size = ROWS * ROWS * 2
    for load in LOADS:
        print(f"\n{load.senders} sender(s) x {load.images} CT images of {size / MEGABYTE:.2f} MB")
        rates = {
            name: sorted(load.total / took for took in times)
            for (name, of), times in seconds.items()
            if of == load
        }
        reference = statistics.median(next(iter(rates.values())))
        for name, values in rates.items():
            middle = statistics.median(values)
            print(
                f"  {name:24s} {middle:7.1f} instances/s ({values[0]:.1f} to {values[-1]:.1f}), "
                f"{middle * size / MEGABYTE:6.1f} MB/s, ratio {middle / reference:4.2f}"
            )


def enter_namespace() -> None:
    """Start again inside a network namespace that has nothing but loopback."""
    if os.environ.get(IN_NAMESPACE) or os.geteuid() != 0 or shutil.which("ip") is None:
        return
    name = f"{NAMESPACE}-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode:
        return
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        code = subprocess.run(
            [*inside, sys.executable, *sys.argv], check=False, env={**os.environ, IN_NAMESPACE: "1"}
        )
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
    raise SystemExit(code.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--disk", type=Path, default=REPOSITORY, help="folder on the disk to measure")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port, options.processes[0])
        return
    enter_namespace()
    if not os.environ.get(IN_NAMESPACE):
        print("no network namespace (needs root and iproute2): Orthanc is left out")
    report(measure(options.repeats, options.disk, tuple(options.processes)))


if __name__ == "__main__":
    main()
