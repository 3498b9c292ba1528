from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from foreign_packages import write_onnx_package, write_torchscript_package
from random_model_package import write_random_package

from inference import engines, runner, tuning
from inference.engines import EngineName, EngineUnavailableError, available_engines, build_engine
from inference.packages import load_package
from inference.rehearsal import example_batch
from inference.runner import Runner
from inference.tuning import Tolerance, Trial, TunedEngines, choose, mask_dice, tune

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CPU = torch.device("cpu")
EXACT = (EngineName.ONNXRUNTIME, EngineName.OPENVINO)
ROUNDED = (EngineName.EAGER_BF16, EngineName.OPENVINO_BF16)


@pytest.mark.parametrize("engine", [*EXACT, *ROUNDED])
def test_every_engine_gives_the_network_s_answer(tmp_path, engine):
    network = load_package(write_random_package(tmp_path)).build()
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.sigmoid(network(batch))
    given = torch.sigmoid(build_engine(engine, network, batch)(batch))
    assert given.dtype == torch.float32
    tolerance = 1e-4 if engine in EXACT else tuning.MAX_PROBABILITY_DIFFERENCE
    assert (given - expected).abs().max() < tolerance


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # inductor's own
def test_a_compiled_network_gives_the_same_answer(tmp_path):
    network = load_package(write_random_package(tmp_path)).build()
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    given = build_engine(EngineName.COMPILED, network, batch)(batch)
    torch.testing.assert_close(given, network(batch), atol=1e-4, rtol=1e-4)


def test_torchscript_and_onnx_packages_run_in_openvino_too(tmp_path):
    for folder in (write_torchscript_package(tmp_path), write_onnx_package(tmp_path)):
        package = load_package(folder)
        network, batch = package.build(), torch.from_numpy(example_batch(package))
        given = build_engine(EngineName.OPENVINO, network, batch)(batch)
        torch.testing.assert_close(given, network(batch), atol=1e-3, rtol=1e-3)


class TwoAnswers(torch.nn.Module):
    def forward(self, images):
        return [{"boxes": images}]


def test_a_network_of_another_form_has_no_engine():
    with pytest.raises(EngineUnavailableError, match="plain PyTorch"):
        build_engine(EngineName.EAGER, TwoAnswers(), torch.zeros(1, 1, 4, 4))


def test_engines_without_their_library_are_not_offered(monkeypatch):
    found = engines.importlib.util.find_spec
    monkeypatch.setattr(
        engines.importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name)
    )
    offered = available_engines(CPU)
    assert offered[0] is EngineName.EAGER
    assert not {EngineName.OPENVINO, EngineName.OPENVINO_BF16, EngineName.TENSORRT} & set(offered)


def test_the_fastest_that_agrees_is_kept():
    chosen, trials = choose(
        (
            Trial(engine="eager", seconds=1.0),
            Trial(engine="onnxruntime", seconds=0.5),
            Trial(engine="openvino_bf16", seconds=0.1, reason="a probability differs by 0.200"),
            Trial(engine="eager_bf16", seconds=0.99),
        )
    )
    assert chosen is EngineName.ONNXRUNTIME
    assert [bool(trial.reason) for trial in trials] == [False, False, True, True]


def test_plain_pytorch_stays_where_nothing_gains():
    chosen, _ = choose((Trial(engine="eager", seconds=1.0), Trial(engine="openvino", seconds=0.97)))
    assert chosen is EngineName.EAGER


def test_tuning_measures_agreement_and_refuses_what_differs(tmp_path, monkeypatch):
    package = load_package(write_random_package(tmp_path))
    honest = tuning.build_engine

    def build(engine, network, batch):
        forward = honest(EngineName.EAGER, network, batch)
        return (lambda images: forward(images) + 1.0) if engine is EngineName.OPENVINO else forward

    monkeypatch.setattr(tuning, "build_engine", build)
    monkeypatch.setattr(tuning, "example_batch", lambda *_: np.zeros((1, 3, 32, 32), dtype=np.float32))
    ticks = iter(range(10_000))
    tuned = tune(
        package,
        Runner("cpu"),
        now=NOW,
        allowed=(EngineName.OPENVINO, EngineName.ONNXRUNTIME),
        budget_s=1.0,
        clock=lambda: float(next(ticks)),
    )
    assert tuned.engine == EngineName.EAGER
    reasons = {trial.engine: trial.reason for trial in tuned.trials}
    assert "differs" in reasons["openvino"]
    assert reasons["onnxruntime"] == "no gain over plain PyTorch"
    assert tuned.weights_sha256 == package.card.weights.sha256


def test_masks_that_differ_are_refused_although_probabilities_are_close(tmp_path):
    package = load_package(write_random_package(tmp_path))
    first = np.full((1, 1, 2, 2), 0.501, dtype=np.float32)
    second = np.array([[[[0.501, 0.499], [0.501, 0.501]]]], dtype=np.float32)
    assert mask_dice(package, first, second) == pytest.approx(6 / 7)
    assert mask_dice(package, first * 0, second * 0) is None
    trial = tuning._judge(package, Trial(engine="x", seconds=1.0), first, second, Tolerance())
    assert "Dice" in trial.reason


def stored(package, engine=EngineName.OPENVINO, **changes):
    values = {
        "name": package.card.name,
        "version": package.card.version,
        "weights_sha256": package.card.weights.sha256,
        "device": engines.device_name(CPU),
        "engine": engine,
        "software": engines.software_of(engine),
        "batch": (4, 3, 256, 256),
        "trials": (),
        "tuned_at": NOW.isoformat(),
    }
    return tuning.TunedEngine(**(values | changes))


def test_a_choice_holds_for_the_weights_device_and_libraries_that_were_measured(tmp_path):
    package = load_package(write_random_package(tmp_path / "a", version="0.1.0"))
    other = load_package(write_random_package(tmp_path / "b", seed=1))
    site = TunedEngines(tmp_path / "engines")
    assert site.choose(package, CPU) is EngineName.EAGER
    path = site.save(stored(package))
    assert json.loads(path.read_text())["weights_sha256"] == package.card.weights.sha256
    assert site.choose(package, CPU) is EngineName.OPENVINO
    assert site.choose(other, CPU) is EngineName.EAGER
    assert TunedEngines(tmp_path / "engines", (EngineName.EAGER,)).choose(package, CPU) is EngineName.EAGER
    site.save(stored(package, software="torch 1.0, openvino 2020"))
    assert site.choose(package, CPU) is EngineName.EAGER
    path.write_text("{")
    assert site.choose(package, CPU) is EngineName.EAGER


def test_the_runner_runs_what_was_chosen_and_says_so(tmp_path):
    package = load_package(write_random_package(tmp_path))
    batch = np.random.default_rng(0).normal(size=(5, 3, 64, 64)).astype(np.float32)
    fast = Runner("cpu", choose_engine=lambda *_: EngineName.OPENVINO).predict(package, batch)
    plain = Runner("cpu").predict(package, batch)
    assert (fast.statistics.engine, plain.statistics.engine) == ("openvino", "eager")
    np.testing.assert_allclose(fast.probabilities, plain.probabilities, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_an_engine_s_answer_does_not_depend_on_what_shares_the_batch(tmp_path, count):
    package = load_package(write_random_package(tmp_path))
    batch = np.random.default_rng(0).normal(size=(5, 3, 64, 64)).astype(np.float32)
    engine = Runner("cpu", choose_engine=lambda *_: EngineName.ONNXRUNTIME)
    whole = engine.predict(package, batch).probabilities
    np.testing.assert_array_equal(engine.predict(package, batch[:count]).probabilities, whole[:count])


def failing(error):
    def build(*_):
        def forward(images):
            raise error

        return forward

    return build


def refusing(*_):
    raise EngineUnavailableError("it does not load")


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (refusing, "does not load"),
        (failing(torch.OutOfMemoryError("full")), "out of memory"),
        (failing(RuntimeError("broken")), "RuntimeError"),
    ],
)
def test_an_engine_that_fails_gives_way_to_plain_pytorch(tmp_path, monkeypatch, build, reason):
    monkeypatch.setattr(runner, "build_engine", build)
    package = load_package(write_random_package(tmp_path))
    batch = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    given = Runner("cpu", choose_engine=lambda *_: EngineName.OPENVINO).predict(package, batch)
    np.testing.assert_array_equal(given.probabilities, Runner("cpu").predict(package, batch).probabilities)
    assert given.statistics.engine == "eager"
    assert reason in given.statistics.fallback
