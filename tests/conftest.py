"""What all tests share: offline, a tiny model with its tokenizer, and small data folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from regreason_plugin.data_folder.folder import DataFolder

# Before anything imports huggingface_hub, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A busy machine is no failure; speed is measured in tests/bench.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

SPECIAL_TOKENS = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = [
    "User: Where does the river rise? Assistant: In the hills to the north.",
    "How natural is the last message, from 1 to 5? Assessment: 3",
    "The answer leaves out what was asked. Rating: 2",
]


TIERS = ("e2e", "integration", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever is not marked as of another tier is a unit test; the longest files come first.

    And what takes the real model is marked so.
    """

    def tier(item: pytest.Item) -> int:
        return next(n for n, name in enumerate(TIERS) if item.get_closest_marker(name))

    for item in items:
        if "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_model)
            item.add_marker(pytest.mark.slow)
        if not any(item.get_closest_marker(name) for name in TIERS):
            item.add_marker(pytest.mark.unit)
    items.sort(key=tier)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 2 layers of 32 and a byte-level BPE tokenizer.

    The tokenizer puts ``<s>`` before every text, ends on ``</s>``, knows the special
    tokens of other families and has a ChatML template. Its window is 2,048 tokens.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A",
                pair="<s> $A <s> $B",
                special_tokens=[("<s>", bpe.token_to_id("<s>"))],
            ),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=SPECIAL_TOKENS[3:],
        chat_template=CHATML,
        model_max_length=2048,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            # Weights of the usual size leave a random model indifferent between the
            # labels; this one has opinions, so tests see different predictions.
            initializer_range=0.3,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    folder = tmp_path_factory.mktemp("tiny_model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in float32; without it a test is skipped."""
    from helpers.real_model import smollm2_folder

    return smollm2_folder()


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """A data folder with all 18 settings, some 20 test rows each, label first."""
    from regreason_plugin.data_folder.mini import build_mini

    return build_mini(tmp_path_factory.mktemp("mini") / "DATA", per_dataset=90)


@pytest.fixture(scope="session")
def explanation_first_folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """The same conversations, explanation first."""
    from regreason_plugin.data_folder.build import BuildOptions
    from regreason_plugin.data_folder.mini import build_mini

    options = BuildOptions(order="explanation_first")
    return build_mini(tmp_path_factory.mktemp("mini") / "DATA", options, per_dataset=90)
