"""Text generation beside transformers' GPT-2 and BART with the same weights, and its metrics beside sacrebleu and rouge_score."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from embedkit.generation.beam_search import beam_search
from embedkit.generation.decoding_rules import DecodingRules
from embedkit.generation.metrics import bleu, chrf, rouge
from embedkit.generation.options import GenerationOptions
from embedkit.generation.sampling import decode_rows
from embedkit.model.config import EncoderConfig
from embedkit.model.decoder_config import DecoderConfig
from embedkit.model.decoding import Decoding
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.text_generator import TextGenerator
from embedkit.training.generation.objective import TeacherForcing

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers", reason="parity needs transformers")

TOLERANCE = 1e-4  # logits of tens, two layers of float32 sums in another order
VOCABULARY, START, PAD, END = 60, 2, 1, 3
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}


def copy(ours: torch.nn.Module, theirs: dict[str, Tensor], names: dict[str, Sequence[str]], *, transposed: bool = False) -> None:  # fmt: skip
    """Give our parameters theirs, several stacked; GPT-2's linear layers are transposed."""
    state = {}
    for name, parts in names.items():
        tensors = [theirs[part].T if transposed and theirs[part].ndim == 2 and "wte" not in part and "wpe" not in part else theirs[part] for part in parts]  # fmt: skip
        state[name] = torch.cat(tensors)
    missing = ours.load_state_dict(state, strict=True)
    assert not missing.missing_keys


@pytest.fixture(scope="module")
def gpt2() -> tuple[TextGenerator, Any]:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=48,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=64,
        initializer_range=0.3,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # texts end now and then
        end = theirs.transformer.wte.weight[END]
        theirs.transformer.ln_f.bias.copy_(end * 4 / end.dot(end))
    shape = DecoderConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=48,
        hidden_act="gelu_tanh",
        norm_first=True,
        **SIZES,  # type: ignore[arg-type] # whole numbers
    )
    ours = TextGenerator(None, shape).eval()
    names: dict[str, Sequence[str]] = {
        "decoder.tokens.weight": ["transformer.wte.weight"],
        "decoder.positions.weight": ["transformer.wpe.weight"],
    }
    parts = {
        "attention_norm": "ln_1",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
    }
    for kind in ("weight", "bias"):
        names[f"decoder.final_norm.{kind}"] = [f"transformer.ln_f.{kind}"]
        for layer in range(2):
            for own, other in parts.items():
                names[f"decoder.layers.{layer}.{own}.{kind}"] = [f"transformer.h.{layer}.{other}.{kind}"]
    copy(ours, theirs.state_dict(), names, transposed=True)
    return ours, theirs


@pytest.fixture(scope="module")
def bart() -> tuple[TextGenerator, Any]:
    """BART's encoder is our encoder without token types, its positions two rows further on."""
    torch.manual_seed(1)
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=48,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        init_std=0.3,
        bos_token_id=0,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=START,
        forced_eos_token_id=None,
        forced_bos_token_id=None,
    )
    theirs = transformers.BartForConditionalGeneration(config).eval()
    theirs.final_logits_bias[0, END] = 5.0  # texts end now and then, and later tokens are others
    with torch.no_grad():
        theirs.model.decoder.embed_positions.weight.mul_(4)
    encoder = TransformerEncoder(
        EncoderConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=50,
            position_offset=2,
            type_vocab_size=0,
            layer_norm_eps=1e-5,
            **SIZES,  # type: ignore[arg-type] # whole numbers
        )
    )
    shape = DecoderConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=48,
        norm_first=False,
        embedding_norm=True,
        encoder_size=32,
        share_embeddings=True,
        output_bias=True,
        **SIZES,  # type: ignore[arg-type] # whole numbers
    )
    ours = TextGenerator(encoder, shape).eval()
    weights = theirs.state_dict()
    weights["final_logits_bias"] = weights["final_logits_bias"][0]
    weights["model.decoder.embed_positions.weight"] = weights["model.decoder.embed_positions.weight"][2:]
    names: dict[str, Sequence[str]] = {
        "encoder.embeddings.tokens.weight": ["model.shared.weight"],
        "encoder.embeddings.positions.weight": ["model.encoder.embed_positions.weight"],
        "decoder.positions.weight": ["model.decoder.embed_positions.weight"],
        "decoder.output_bias": ["final_logits_bias"],
    }
    common = {
        "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attention.out": ["self_attn.out_proj"],
        "attention_norm": ["self_attn_layer_norm"],
        "mlp.up": ["fc1"],
        "mlp.down": ["fc2"],
        "mlp_norm": ["final_layer_norm"],
    }
    cross = {
        "cross_attention.query": ["encoder_attn.q_proj"],
        "cross_attention.key_value": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
        "cross_attention.out": ["encoder_attn.out_proj"],
        "cross_attention_norm": ["encoder_attn_layer_norm"],
    }
    for kind in ("weight", "bias"):
        names[f"encoder.embeddings.norm.{kind}"] = [f"model.encoder.layernorm_embedding.{kind}"]
        names[f"decoder.embedding_norm.{kind}"] = [f"model.decoder.layernorm_embedding.{kind}"]
        for layer in range(2):
            for side, parts in (("encoder", common), ("decoder", common | cross)):
                for own, others in parts.items():
                    names[f"{side}.layers.{layer}.{own}.{kind}"] = [
                        f"model.{side}.layers.{layer}.{other}.{kind}" for other in others
                    ]
    copy(ours, weights, names)
    return ours, theirs


LENGTHS = [9, 4, 4, 6]


def sources() -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(5, VOCABULARY) for _ in range(length)] for length in LENGTHS]


def padded(rows: Sequence[Sequence[int]], *, left: bool = False) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return ids, mask


def test_a_language_models_loss_and_gradients_equal_gpt2s(gpt2: tuple[TextGenerator, Any]) -> None:
    ours, theirs = gpt2
    rows = sources()
    ids, mask = padded(rows)
    theirs.zero_grad()
    wanted = theirs(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
    wanted.loss.backward()
    shown = torch.tensor([token for row in rows for token in row[:-1]])
    said = torch.tensor([token for row in rows for token in row[1:]])
    forcing = TeacherForcing(ours)
    loss = forcing(shown, said, [len(row) - 1 for row in rows])[0] / len(said)
    torch.testing.assert_close(loss, wanted.loss, rtol=0, atol=1e-5)
    ours.zero_grad()
    torch.autograd.backward(loss)
    for mine, their in (
        ("decoder.tokens.weight", "transformer.wte.weight"),
        ("decoder.layers.0.attention.qkv.weight", "transformer.h.0.attn.c_attn.weight"),
        ("decoder.layers.1.mlp.down.bias", "transformer.h.1.mlp.c_proj.bias"),
    ):
        found, gradient = ours.get_parameter(mine).grad, theirs.get_parameter(their).grad
        assert found is not None
        gradient = gradient.T if "c_attn" in their else gradient
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=TOLERANCE)


def compare_losses(ours: TextGenerator, theirs: Any, targets: Sequence[Sequence[int]], *, start: int) -> None:
    """Compute the loss of a target for each source in both, and the gradients of all parameters."""
    read = sources()
    ids, mask = padded(read)
    labels, label_mask = padded(targets)
    theirs.zero_grad()
    # Theirs shifts the labels itself: the start token, then all but the last.
    wanted = theirs(input_ids=ids, attention_mask=mask, labels=labels.masked_fill(label_mask == 0, -100))
    wanted.loss.backward()
    shown = torch.tensor([token for row in targets for token in [start, *row[:-1]]])
    said = torch.tensor([token for row in targets for token in row])
    flat = torch.tensor([token for row in read for token in row])
    sums = TeacherForcing(ours)(shown, said, [len(row) for row in targets], flat, LENGTHS)
    loss = sums[0] / len(said)
    torch.testing.assert_close(loss, wanted.loss, rtol=1e-5, atol=1e-5)
    ours.zero_grad()
    torch.autograd.backward(loss)


def test_an_encoder_decoders_loss_and_gradients_equal_barts(bart: tuple[TextGenerator, Any]) -> None:
    ours, theirs = bart
    compare_losses(ours, theirs, [[*row[:3], END] for row in sources()[::-1]], start=START)
    for mine, their in (
        ("encoder.embeddings.tokens.weight", "model.shared.weight"),
        ("encoder.layers.0.mlp.up.weight", "model.encoder.layers.0.fc1.weight"),
        ("decoder.layers.1.cross_attention.query.weight", "model.decoder.layers.1.encoder_attn.q_proj.weight"),
        ("decoder.layers.0.cross_attention.out.bias", "model.decoder.layers.0.encoder_attn.out_proj.bias"),
    ):  # fmt: skip
        found, gradient = ours.get_parameter(mine).grad, theirs.get_parameter(their).grad
        assert found is not None
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=TOLERANCE)


SEARCHES: list[dict[str, Any]] = [
    {"num_beams": 4},
    {"num_beams": 4, "length_penalty": 0.0},
    {"num_beams": 3, "length_penalty": 2.0},
    {"num_beams": 5, "length_penalty": -1.0},
    {"num_beams": 4, "no_repeat_ngram_size": 2},
    {"num_beams": 4, "min_new_tokens": 5},
    {"num_beams": 1},
]


def theirs_of(theirs: Any, prompts: Sequence[Sequence[int]], options: dict[str, Any], **inputs: Tensor) -> list[list[tuple[tuple[int, ...], float]]]:  # fmt: skip
    """Every beam of each text that transformers returns: new tokens to the end, and its score."""
    beams = options["num_beams"]
    out = theirs.generate(
        **inputs,
        **options,
        num_return_sequences=beams,
        max_new_tokens=12,
        do_sample=False,
        early_stopping=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = out.sequences_scores.tolist() if beams > 1 else [0.0] * len(out.sequences)
    found: list[list[tuple[tuple[int, ...], float]]] = [[] for _ in prompts]
    for number, (sequence, score) in enumerate(zip(out.sequences.tolist(), scores, strict=True)):
        width = (
            inputs["input_ids"].shape[1] if len(prompts[0]) > 1 or not theirs.config.is_encoder_decoder else 1
        )
        new = sequence[width:]
        stop = new.index(END) + 1 if END in new else len(new)
        found[number // beams].append((tuple(new[:stop]), score))
    return found


def compare(steps: Decoding, prompts: list[list[int]], options: dict[str, Any], wanted: list[list[tuple[tuple[int, ...], float]]]) -> None:  # fmt: skip
    """Without ties, which random weights do not have, outputs are the same, in the same order."""
    rules = DecodingRules(END, (), options.get("min_new_tokens", 0), options.get("no_repeat_ngram_size", 0))
    if options["num_beams"] == 1:
        greedy = GenerationOptions(method="greedy", max_new_tokens=12)
        found = decode_rows(steps, prompts, rules, greedy)
    else:
        found = beam_search(
            steps,
            prompts,
            rules,
            num_beams=options["num_beams"],
            max_new_tokens=12,
            length_penalty=options.get("length_penalty", 1.0),
        )
    outputs = [tokens for own in wanted for tokens, _ in own]
    assert any(tokens[-1] == END for tokens in outputs)
    assert options["num_beams"] == 1 or len(set(map(len, outputs))) > 1
    for prompt, own, theirs in zip(prompts, found, wanted, strict=True):
        assert [each.tokens[len(prompt) :] for each in own] == [tokens for tokens, _ in theirs]
        if options["num_beams"] > 1:
            assert [each.score for each in own] == pytest.approx(
                [score for _, score in theirs], abs=1e-4, rel=3e-5
            )


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_beam_search_over_an_encoder_equals_transformers(options: dict[str, Any], bart: tuple[TextGenerator, Any]) -> None:  # fmt: skip
    compare_searches(*bart, options, start=START)


def compare_searches(ours: TextGenerator, theirs: Any, options: dict[str, Any], *, start: int) -> None:
    """Generate from all sources in both."""
    read = sources()
    ids, mask = padded(read)
    prompts = [[start]] * len(read)
    wanted = theirs_of(theirs, prompts, options, input_ids=ids, attention_mask=mask)
    with torch.inference_mode():
        source = ours.encode(torch.tensor([token for row in read for token in row]), LENGTHS)
        compare(Decoding(ours, prompts, source), prompts, options, wanted)


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_beam_search_of_a_language_model_equals_transformers(options: dict[str, Any], gpt2: tuple[TextGenerator, Any]) -> None:  # fmt: skip
    """Prompts of different lengths, padded on the left for transformers."""
    ours, theirs = gpt2
    prompts = sources()
    ids, mask = padded(prompts, left=True)
    wanted = theirs_of(theirs, prompts, options, input_ids=ids, attention_mask=mask)
    if "no_repeat_ngram_size" in options:  # theirs counts the padding as tokens too: one by one there is none
        wanted = [
            theirs_of(theirs, [row], options, input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row)).long())[0]
            for row in prompts
        ]  # fmt: skip
    with torch.inference_mode():
        compare(Decoding(ours, prompts), prompts, options, wanted)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.6}, {"top_k": 7}, {"top_p": 0.8}, {"temperature": 1.5, "top_k": 20, "top_p": 0.5}],
    ids=str,
)
def test_what_is_sampled_is_as_likely_as_in_transformers(options: dict[str, Any]) -> None:
    """Every number that could be drawn, on a fine grid, gives each token as often as transformers' warped probabilities say."""
    from embedkit.generation.sampling import draw

    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2
    warped = logits[None].clone()
    if "temperature" in options:
        warped = transformers.TemperatureLogitsWarper(options["temperature"])(None, warped)
    if "top_k" in options:
        warped = transformers.TopKLogitsWarper(options["top_k"])(None, warped)
    if "top_p" in options:
        warped = transformers.TopPLogitsWarper(options["top_p"])(None, warped)
    count = 200_000
    uniforms = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found = torch.cat([draw(logits.expand(len(part), -1), part, **options) for part in uniforms.chunk(20)])
    shares = torch.bincount(found, minlength=VOCABULARY) / count
    torch.testing.assert_close(shares, warped.softmax(dim=1)[0], rtol=0, atol=2 / count)


TEXT = """the cat sat on 3,500 mats. what's U.S. 12-13 a-b & &amp; "quoted" (x) hello, world! über straße 1.5% :-) end"""


def test_metrics_equal_sacrebleu_and_rouge_score() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    rng = random.Random(0)

    def text(least: int = 0) -> str:
        return " ".join(rng.choice(TEXT.split()) for _ in range(rng.randint(least, 12)))

    for _ in range(200):
        references = [[text(1) for _ in range(1 + rng.randrange(3))] for _ in range(rng.randint(1, 6))]
        width = min(map(len, references))
        references = [own[:width] for own in references]
        outputs = [text() if rng.random() < 0.5 else own[0][: rng.randint(0, 40)] for own in references]
        streams = [list(stream) for stream in zip(*references, strict=True)]
        assert bleu(outputs, references) == pytest.approx(sacrebleu.corpus_bleu(outputs, streams).score)
        assert chrf(outputs, references) == pytest.approx(sacrebleu.corpus_chrf(outputs, streams).score)
        for output, own in zip(outputs, references, strict=True):
            theirs = scorer.score_multi(own, output)
            assert rouge(output, own) == pytest.approx({name: each.fmeasure for name, each in theirs.items()})
