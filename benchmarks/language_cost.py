"""What a report's wording costs: seconds and memory for each backend, side by side, on the same reports.

    python benchmarks/language_cost.py --reports 10 --adapter models/NAME/VERSION

Every backend runs in a process of its own, one after the other, on the same drawn studies. The
endpoint is a server in a further process that serves the embedded model over OpenAI's protocol.
Beside the cost stands what the checker makes of the answers: how many pass as they are, how many
are repaired, and for how many the draft stands.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

from integration.connections import HttpEndpoint
from integration.language import build_model
from integration.refining import FactChecker
from integration.settings import LanguageSection
from reporting.language.drawing import draw_facts
from reporting.language.grammar import write_answer_sentences
from reporting.refine.port import CompletionRequest, LanguageModel
from reporting.refine.prompt import Ground
from reporting.refine.record import Budget, RefinementRecord
from reporting.refine.refinement import refine_report
from reporting.text import Author, ReportText, Section, SectionName, Sentence, TextProvenance

BACKENDS = ("none", "embedded", "embedded+adapter", "local", "local+adapter", "endpoint")
#: Far from the seeds that pairs for training are drawn from.
FIRST_SEED = 900_000


@dataclass
class Measured:
    backend: str
    model: str
    load_s: float
    resident_mb: float
    peak_mb: float
    records: list[dict[str, object]]


def draw_report(seed: int) -> tuple[Ground, ReportText]:
    """Return a drawn study and a draft of it."""
    ground = draw_facts(Random(seed))
    facts = ground.facts
    sentences = write_answer_sentences(ground, Random(seed + 1))
    sections = tuple(
        Section(
            name=name,
            sentences=tuple(
                Sentence(
                    text=one.text,
                    finding_ids=tuple(fact.fact_id for fact in facts.facts if fact.alias in one.aliases),
                )
                for one in sentences
                if one.section is name and name is not SectionName.RECOMMENDATION
            ),
        )
        for name in (SectionName.FINDINGS, SectionName.IMPRESSION, SectionName.RECOMMENDATION)
    )
    return ground, ReportText(
        sections=sections, provenance=TextProvenance(author=Author.RULES, remark="Drawn by rule.")
    )


def section_of(backend: str, adapter: Path | None, url: str, threads: int) -> LanguageSection:
    kind, _, with_adapter = backend.partition("+")
    values: dict[str, object] = {"backend": kind, "threads": threads, "device": "auto"}
    if with_adapter:
        values["adapter"] = adapter
    if kind == "endpoint":
        values |= {"model": "embedded", "endpoint": HttpEndpoint(url=url)}
    if kind == "local":
        values["device"] = "cpu"
    return LanguageSection(**values)


def measure(args: argparse.Namespace) -> Measured:
    """Run one backend in this process."""
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    before = resident_mb()
    section = section_of(args.backend, args.adapter, args.url, args.threads)
    model = build_model(section, args.cache)
    began = time.monotonic()
    if model is not None:
        model.complete(CompletionRequest(system="Be short.", user="Say: ready.", max_tokens=4, timeout_s=900))
    load_s = time.monotonic() - began
    checker, budget = FactChecker(), Budget(seconds=args.budget_s, attempts=args.attempts)
    records: list[RefinementRecord] = []
    for number in range(args.reports):
        ground, draft = draw_report(FIRST_SEED + number)
        began = time.monotonic()
        record = refine_report(
            draft, ground, model, checker=checker, budget=budget, clock=time.monotonic
        ).record
        spent = time.monotonic() - began
        records.append(replace(record, seconds=spent))
        print(f"{args.backend} {number}: {spent:.1f} s {record.standing} {record.reason}", file=sys.stderr)
    return Measured(
        backend=args.backend,
        model=model.identity if model is not None else "",
        load_s=load_s,
        resident_mb=resident_mb() - before,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        records=[asdict(record) for record in records],
    )


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def describe(measured: Measured) -> str:
    """Return one row of the table."""
    records = measured.records
    seconds = [float(record["seconds"]) for record in records]  # type: ignore[arg-type]
    tokens = [int(record["completion_tokens"]) for record in records]  # type: ignore[call-overload]
    standing = [str(record["standing"]) for record in records]
    passed = sum(
        not record["faults"] and record["reason"] in {"faithful", "incomplete"} for record in records
    )
    return (
        f"| {measured.backend} | {measured.load_s:.1f} | {statistics.median(seconds):.2f} "
        f"({min(seconds):.2f} to {max(seconds):.2f}) | {statistics.median(tokens):.0f} "
        f"| {measured.resident_mb:.0f} | {measured.peak_mb:.0f} | {passed} of {len(records)} "
        f"| {standing.count('model')} / {standing.count('repaired')} / {standing.count('draft')} |"
    )


def serve(model: LanguageModel, port: int) -> None:
    """Serve a model over OpenAI's chat protocol, constrained by the schema that a request brings."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._reply({"data": [{"id": "embedded"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            form = body.get("response_format") or {}
            completion = model.complete(
                CompletionRequest(
                    system=body["messages"][0]["content"],
                    user=body["messages"][1]["content"],
                    schema=(form.get("json_schema") or {}).get("schema"),
                    max_tokens=body["max_tokens"],
                    timeout_s=900,
                )
            )
            self._reply(
                {
                    "choices": [
                        {
                            "message": {"role": "assistant", "content": completion.text},
                            "finish_reason": "length" if completion.is_cut else "stop",
                        }
                    ],
                    "usage": {
                        "prompt_tokens": completion.prompt_tokens,
                        "completion_tokens": completion.completion_tokens,
                    },
                }
            )

        def _reply(self, answer: dict[str, object]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def run_child(args: argparse.Namespace, backend: str, *further: str) -> list[str]:
    command = [sys.executable, __file__, "--backend", backend, "--cache", str(args.cache)]
    command += ["--reports", str(args.reports), "--threads", str(args.threads)]
    command += ["--budget-s", str(args.budget_s), "--attempts", str(args.attempts)]
    if args.adapter is not None:
        command += ["--adapter", str(args.adapter)]
    return [*command, *further]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reports", type=int, default=10)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget-s", type=float, default=600.0)
    parser.add_argument("--attempts", type=int, default=1)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "preread-language")
    parser.add_argument("--out", type=Path, help="also write everything measured as JSON")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        model = build_model(section_of(args.backend, args.adapter, "", args.threads), args.cache)
        assert model is not None
        serve(model, 0)
        return
    if args.backend:
        print(json.dumps(asdict(measure(args))))
        return
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, {args.reports} reports,")
    print(f"load average {os.getloadavg()[0]:.1f} before the run; one attempt a report.\n")
    print(
        "| backend | load, s | s per report, median (range) | tokens | resident, MB | peak, MB | passed "
        "| model / repaired / draft |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    results = []
    for backend in args.backends:
        if "adapter" in backend and args.adapter is None:
            continue
        server = None
        further: list[str] = []
        if backend == "endpoint":
            served = "embedded+adapter" if args.adapter else "embedded"
            server = subprocess.Popen(run_child(args, served, "--serve"), stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            further = ["--url", f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"]
        try:
            done = subprocess.run(
                run_child(args, backend, *further), stdout=subprocess.PIPE, text=True, check=True
            )
        finally:
            if server is not None:
                server.terminate()
                server.wait()
        results.append(Measured(**json.loads(done.stdout.splitlines()[-1])))
        print(describe(results[-1]), flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps([asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
