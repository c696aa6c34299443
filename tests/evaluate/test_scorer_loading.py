"""`regreason-hf` gives the same numbers as `hf`, however a model is loaded or memory is short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from helpers.label_requests import requests, score
from helpers.model_zoo import PACKED, random_model, tokenizer
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, PeftModel, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from regreason_plugin.evaluate import scorer as scorer_module
from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration

LAYERS = 3


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama, as a user would name one."""
    return save(random_model("llama"), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def plain(base: Path) -> list[Any]:
    """Answers and probes of the unchanged base model, which some ways to load it must keep."""
    return score(RegReasonHF(str(base), device="cpu", batch_size=4, probe="all"), requests())


def check(
    found: list[Any], expected: list[Any], tolerance: float = 1e-4, lens: float = 1e-4
) -> None:
    """Check the numbers, and that every answer has all probes and a lens equal to the output."""
    assert numbers(found) == pytest.approx(numbers(expected), abs=tolerance)
    for one in found:
        assert one.probe["output_entropy"] > 0
        assert one.probe["label_entropy"] >= 0
        by_layer = {key: value for key, value in one.probe.items() if key.endswith("_by_layer")}
        assert len(by_layer) == 4
        assert all(value is None or len(value) == LAYERS + 1 for value in by_layer.values())
        assert by_layer["logit_lens_entropy_by_layer"][-1] == pytest.approx(
            one.probe["output_entropy"], rel=lens
        )


def numbers(answers: list[Any]) -> list[float]:
    return [one[0] for one in answers]


def same_probes(found: list[Any], expected: list[Any], tolerance: float = 1e-4) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.probe.keys() == other.probe.keys()
        for key, value in other.probe.items():
            exact = value is None or isinstance(value, str)
            assert one.probe[key] == (value if exact else pytest.approx(value, abs=tolerance)), key


def apart(one: list[Any], other: list[Any]) -> float:
    """The median difference of two models' answers."""
    return float(np.median(np.abs(np.subtract(numbers(one), numbers(other)))))


# --- peft ---------------------------------------------------------------------------------


def lora(folder: Path, base: Path, **config: Any) -> Path:
    """Save a random adapter, with a random B as well, which is zero before any training."""
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(
            task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, init_lora_weights=False, **config
        ),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
        elif "modules_to_save" in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj", "v_proj", "down_proj"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    ],
    ids=["layers", "head", "saved head", "saved embeddings, norm and head"],
)
def test_lora_from_a_folder(
    config: dict[str, Any], base: Path, plain: list[Any], tmp_path: Path
) -> None:
    adapter, asked = str(lora(tmp_path / "adapter", base, **config)), requests()
    arguments = {"peft": adapter, "device": "cpu"}
    expected = score(HFLM(str(base), batch_size=3, **arguments), asked)
    lm = RegReasonHF(str(base), batch_size=4, probe="all", **arguments)
    found = score(lm, asked)
    assert isinstance(lm.model, PeftModel)
    assert lm.scorer.packs
    check(found, expected)
    assert apart(found, plain) > 0.1  # the adapter has an effect
    # The merged model, in which no adapter hides the layers, gives the same probes.
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    whole = RegReasonHF(merged.merge_and_unload(), tokenizer=tokenizer(), probe="all")
    same_probes(found, score(whole, asked))


def test_prompt_tuning_is_left_to_hf(base: Path, plain: list[Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=6)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path)
    arguments = {"peft": str(tmp_path), "device": "cpu", "batch_size": 3}
    asked = requests()
    expected = score(HFLM(str(base), **arguments), asked)
    lm = RegReasonHF(str(base), **arguments)
    found = score(lm, asked)
    assert [tuple(one) for one in found] == expected
    # `None` makes the documents count as documents without probe.
    assert [one.probe for one in found] == [None] * len(asked)
    assert apart(found, plain) > 0.1
    assert lm.scorer.tokens_read == 0
    without = score(RegReasonHF(str(base), probe="none", **arguments), asked)
    assert without == expected
    assert {type(one) for one in without} == {tuple}


# --- 8 and 4 bits -------------------------------------------------------------------------

BITS = {
    "8": {"load_in_8bit": True},
    "4": {"load_in_4bit": True},
    "nf4, twice": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 64 units, because bitsandbytes splits rows into blocks of 64.

    Its weights are small. With 8 bits, bitsandbytes does not quantise columns in which any input
    of the batch exceeds 6. With large weights, hf's own numbers would therefore depend on the
    batch (by 0.3 in log-likelihood here); with these weights they do not.
    """
    config = PACKED["llama"]()
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 16
    config.initializer_range = 0.08
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    return save(model, tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def quantised(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders with quantised weights, as on the Hub."""
    pytest.importorskip("bitsandbytes", reason="Axolotl brings it")
    folders: dict[str, Path] = {}

    def folder(bits: str) -> Path:
        if bits not in folders:
            config = BitsAndBytesConfig(**BITS[bits])
            model = AutoModelForCausalLM.from_pretrained(wide, quantization_config=config)
            folders[bits] = save(model, tmp_path_factory.mktemp("quantised"))
        return folders[bits]

    return folder


@pytest.mark.parametrize("adapted", [False, True], ids=["", "with lora"])
@pytest.mark.parametrize("bits", BITS)
def test_quantised_weights(
    bits: str, adapted: bool, wide: Path, quantised: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, asked = str(quantised(bits)), requests()
    arguments: dict[str, Any] = {"device": "cpu"}
    if adapted:
        arguments["peft"] = str(lora(tmp_path, wide, target_modules=["q_proj", "up_proj"]))
    expected = score(HFLM(folder, batch_size=3, **arguments), asked)
    lm = RegReasonHF(folder, batch_size=4, probe="all", **arguments)
    found = score(lm, asked)
    weight = lm.model.get_submodule(
        ("base_model.model." if adapted else "") + "model.layers.0.mlp.down_proj"
    ).weight
    assert weight.dtype == (torch.int8 if bits == "8" else torch.uint8)
    assert lm.scorer.packs
    # A layer's input is first rounded to 8 bits (to int8, or on some CPUs to bfloat16). Another
    # shape of the batch changes an input's last digit, which occasionally changes the rounding.
    check(found, expected, tolerance=2e-2)
    assert apart(found, expected) < 1e-5
    whole = score(HFLM(str(wide), batch_size=3, **arguments), asked)
    assert apart(found, whole) > 1e-3  # the weights really are quantised


@pytest.mark.parametrize("bits", BITS)
def test_quantising_while_loading(bits: str, wide: Path, quantised: Callable[[str], Path]) -> None:
    """``load_in_4bit=True`` and similar arguments in ``--model_args``.

    (With transformers 5, hf fails on these arguments, so it loads weights that are already
    quantised.)
    """
    arguments = {"device": "cpu", "batch_size": 4, **BITS[bits]}
    lm = RegReasonHF(str(wide), probe="all", **arguments)
    found = score(lm, requests())
    expected = score(HFLM(str(quantised(bits)), device="cpu", batch_size=3), requests())
    check(found, expected, tolerance=2e-2)
    assert apart(found, expected) < 1e-5


# --- Several devices ----------------------------------------------------------------------

# Each kind of module is on disk at least once: the first and the last layer, and the norm and
# the head, which the logit lens calls separately.
PLACES = {
    "disk": {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.layers.0": "disk",
        "model.layers.1": "cpu",
        "model.layers.2": "disk",
        "model.norm": "disk",
        "lm_head": "disk",
    },
    "all on disk but one layer": {
        "model.embed_tokens": "disk",
        "model.rotary_emb": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.layers.2": "disk",
        "model.norm": "disk",
        "lm_head": "disk",
    },
}


@pytest.mark.parametrize("places", PLACES)
def test_device_map(places: str, base: Path, plain: list[Any], tmp_path: Path) -> None:
    asked = requests()
    # (Without `parallelize`, lm-eval ignores the device map.)
    arguments = {
        "device": "cpu",
        "parallelize": True,
        "device_map": PLACES[places],
        "offload_folder": str(tmp_path),
    }
    expected = score(HFLM(str(base), batch_size=3, **arguments), asked)
    lm = RegReasonHF(str(base), batch_size=4, probe="all", **arguments)
    away(lm.model, places)
    found = score(lm, asked)
    away(lm.model, places)  # again, after the probes have called the norm and the head
    assert lm.scorer.packs
    check(found, expected)
    assert numbers(found) == pytest.approx(numbers(plain), abs=1e-4)
    same_probes(found, plain)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3, window shorter"])
def test_a_model_that_is_dispatched_already(family: str, tmp_path: Path) -> None:
    asked = requests()
    expected = score(RegReasonHF(random_model(family), tokenizer=tokenizer(), probe="all"), asked)
    model = random_model(family)
    spread = {
        name: "cpu" if name.endswith((".0", "rotary_emb", "wte", "embed_tokens")) else "disk"
        for name in parts(model)
    }
    # A head that is tied to the embeddings must be on the same device.
    if model.config.tie_word_embeddings:
        spread["lm_head"] = "cpu"
    assert {*spread.values()} == {"cpu", "disk"}
    model = dispatch_model(
        model, spread, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
    )
    assert sum(parameter.device.type == "meta" for parameter in model.parameters()) > 10
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=4, probe="all")
    found = score(lm, asked)
    assert lm.scorer.packs
    check(found, score(HFLM(model, tokenizer=tokenizer(), batch_size=3), asked))
    same_probes(found, expected)


def parts(model: Any) -> list[str]:
    """Names of each layer and of all other modules, which cover every weight once."""
    names = ["lm_head"]
    for trunk, body in model.named_children():
        for name, child in body.named_children():
            if isinstance(child, torch.nn.ModuleList):
                names += [f"{trunk}.{name}.{number}" for number in range(len(child))]
            else:
                names.append(f"{trunk}.{name}")
    return names


def away(model: Any, places: str) -> None:
    """Check that weights on disk are not in memory."""
    for name, place in PLACES[places].items():
        for parameter in model.get_submodule(name).parameters():
            assert parameter.device.type == ("meta" if place == "disk" else "cpu"), name


# --- Precision ----------------------------------------------------------------------------


def test_mixed_precision(tmp_path: Path) -> None:
    asked = requests()
    folder = str(save(random_model("llama", weights=0.05), tmp_path))
    arguments = {"device": "cpu", "mixed_precision_dtype": "bfloat16", "softmax_dtype": "float32"}
    expected = score(HFLM(folder, batch_size=3, **arguments), asked)
    noise = np.abs(np.subtract(numbers(score(HFLM(folder, **arguments), asked)), numbers(expected)))
    lm = RegReasonHF(folder, batch_size=4, probe="all", **arguments)
    found = score(lm, asked)
    assert lm.scorer.packs
    # bfloat16 has 8 significant bits, so hf's own numbers differ this much between batch sizes.
    assert max(noise) < 2e-2
    check(found, expected, tolerance=2e-2, lens=5e-2)
    # The precision really was mixed: float32 gives other numbers.
    exact = score(RegReasonHF(folder, device="cpu", batch_size=4), asked)
    assert 1e-4 < apart(found, exact) < 2e-2
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.float32}


def test_softmax_precision(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests()
    expected = score(HFLM(str(base), device="cpu", batch_size=3, softmax_dtype="float64"), asked)
    seen: list[np.ndarray] = []
    read = scorer_module.logits_at

    def watched(*args: Any, **kwargs: Any) -> Any:
        logits, values = read(*args, **kwargs)
        seen.append(logits.double().numpy())
        return logits, values

    monkeypatch.setattr(scorer_module, "logits_at", watched)
    off = {}
    for dtype in ("float64", "float32"):
        seen.clear()
        lm = RegReasonHF(str(base), device="cpu", batch_size=4, probe="all", softmax_dtype=dtype)
        found = score(lm, asked)
        check(found, expected)
        # Labels of one token, computed exactly by numpy from the recorded logits.
        logits = np.concatenate(seen)
        top = logits.max(axis=-1, keepdims=True)
        known = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        single = [
            (one[0], labels[0])
            for one, (_, _, labels) in zip(found, asked, strict=True)
            if len(labels) == 1
        ]
        off[dtype] = max(np.abs(known[:, label] - value).min() for value, label in single)
    assert off["float64"] < 1e-12
    assert off["float32"] > 1e-9


# --- Out of memory ------------------------------------------------------------------------


class Small:
    """Memory for a number of tokens per pass; a larger pass raises CUDA's out-of-memory error."""

    def __init__(self, model: Any, tokens: int) -> None:
        self.tokens = tokens
        self.failed: list[tuple[int, int]] = []
        self.fitted: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._forward, with_kwargs=True)

    def _forward(self, _: Any, __: Any, kwargs: dict[str, Any]) -> None:
        rows, length = kwargs["input_ids"].shape
        if rows * length > self.tokens:
            self.failed.append((rows, length))
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of "
                "1.00 GiB of which 1.00 MiB is free."
            )
        self.fitted.append((rows, length))


def unlimited(batch_size: int | str) -> list[Any]:
    lm = RegReasonHF(
        random_model("llama"), tokenizer=tokenizer(), batch_size=batch_size, probe="all"
    )
    return score(lm, requests())


# The longest sequence of the requests has 68 tokens; the longest packed row has 81.
@pytest.mark.parametrize(
    ("batch_size", "tokens", "said"),
    [
        ("auto", 300, "tokens"),
        (8, 300, "rows"),
        ("auto", 80, "tokens"),  # the longest rows must be split
        (8, 80, "rows"),
        (1, 80, "tokens"),
    ],
)
def test_smaller_batches_when_memory_is_short(
    batch_size: int | str, tokens: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = unlimited(batch_size)
    capsys.readouterr()
    model, asked = random_model("llama"), requests()
    memory = Small(model, tokens)
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=batch_size, probe="all")
    found = score(lm, asked)
    assert numbers(found) == pytest.approx(numbers(expected), abs=1e-5)
    assert [one[1] for one in found] == [one[1] for one in expected]
    same_probes(found, expected, 1e-5)

    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("regreason: ")
    ]
    assert len(lines) == len(memory.failed) > 0
    for line in lines:
        words = line.removeprefix("regreason: out of memory; continuing with ").split()
        assert words[1:] in (["rows", "per", "batch"], ["tokens", "per", "batch"])
    # Each message gives half the size of the batch that failed.
    rows, length = memory.failed[0]
    half = rows // 2 if said == "rows" else rows * length // 2
    assert lines[0] == f"regreason: out of memory; continuing with {half} {said} per batch"
    assert memory.failed[-1] == ((1, 81) if tokens == 80 else (4, 81))
    # The scorer keeps the smaller size, so nothing fails a second time.
    failures = len(memory.failed)
    again = score(lm, asked)
    assert len(memory.failed) == failures
    assert numbers(again) == pytest.approx(numbers(expected), abs=1e-5)


@pytest.mark.parametrize("batch_size", ["auto", 1])
def test_a_long_row_is_split_no_further_than_it_must(batch_size: int | str) -> None:
    start = list(range(20, 60))
    asked: list[Any] = [
        ((f"question {n}", str(label)), [*start, *range(60 + n, 70 + n)], [label])
        for n in range(12)
        for label in (10, 11)
    ]
    model = random_model("llama")
    expected = score(HFLM(model, tokenizer=tokenizer()), asked)
    memory = Small(model, 120)
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=batch_size, probe="all")
    check(score(lm, asked), expected)
    assert memory.failed == [(1, 40 + 12 * 10)]
    # A row of at most 80 tokens holds four questions.
    assert lm.scorer.tokens_read == 3 * 40 + 12 * 10


@pytest.mark.parametrize("batch_size", ["auto", 8])
def test_a_sequence_that_does_not_fit(
    batch_size: int | str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = random_model("llama")
    memory = Small(model, 40)
    lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size=batch_size, probe="all")
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        score(lm, requests())
    assert end.value.code == 2
    *halved, last = capsys.readouterr().err.strip().splitlines()
    rows, length = memory.failed[-1]
    assert rows == 1
    assert last.startswith(f"regreason: out of memory with a single sequence of {length} tokens; ")
    assert len(halved) == len(memory.failed) - 1
    assert all("out of memory; continuing with" in line for line in halved)


# In this model only the inner activations of an MLP are large: 64 kB per token in each of several
# tensors. Memory for 1,200 tokens of one such tensor is too little for all requests in one batch
# of about 800 tokens, and enough for a single sequence.
REALLY_SHORT = """
import json, resource, sys
import torch
from transformers import AutoModelForCausalLM
sys.path[:0] = json.loads(sys.argv[1])
from lm_eval.models.huggingface import HFLM
from helpers.model_zoo import PACKED, tokenizer
from helpers.label_requests import requests, score
from regreason_plugin.packing import row_batch as memory
from regreason_plugin.evaluate.model import RegReasonHF

torch.set_num_threads(1)  # a thread that starts under the limit would die of it
config = PACKED["llama"]()
config.intermediate_size = 16384
config.initializer_range = 0.05
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(config).eval()
lm = RegReasonHF(model, tokenizer=tokenizer(), batch_size="auto", probe="all")
score(lm, requests(1)[:1])  # what torch sets up once

messages = []
judge = memory.should_reduce_batch_size
def judged(error):
    messages.append(str(error))
    return judge(error)
memory.should_reduce_batch_size = judged

taken = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize")) * 1024
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (taken + 1200 * 4 * config.intermediate_size, hard))
found = score(lm, requests())
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
expected = score(HFLM(model, tokenizer=tokenizer(), batch_size=3), requests())
json.dump(
    {
        "messages": messages,
        "found": [one[0] for one in found],
        "expected": [one[0] for one in expected],
        "probes": [one.probe for one in found],
        "batch_tokens": lm.scorer.batch_tokens,
    },
    sys.stdout,
)
"""


@pytest.mark.slow
def test_a_batch_that_really_cannot_be_allocated() -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", REALLY_SHORT, json.dumps([str(tests)])],
        # One arena; otherwise each thread reserves address space that it does not use.
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["messages"]
    assert all("can't allocate memory: you tried to allocate" in one for one in told["messages"])
    said = [line for line in done.stderr.splitlines() if "out of memory; continuing with" in line]
    assert len(said) == len(told["messages"])
    assert said[-1] == (
        f"regreason: out of memory; continuing with {told['batch_tokens']} tokens per batch"
    )
    assert told["found"] == pytest.approx(told["expected"], abs=1e-4)
    for probe in told["probes"]:
        assert probe["logit_lens_entropy_by_layer"][-1] == pytest.approx(
            probe["output_entropy"], rel=1e-4
        )
