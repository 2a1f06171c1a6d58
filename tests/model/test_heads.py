"""The heads of pretraining: shapes, ties, and sums worked by hand."""

from __future__ import annotations

import torch

from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead
from tests.tiny import tiny_config


def test_the_decoder_of_the_masked_lm_head_is_the_token_table() -> None:
    torch.manual_seed(0)
    config = tiny_config()
    encoder, head = TransformerEncoder(config), MaskedLMHead(config)
    table = encoder.embeddings.tokens.weight
    hidden = torch.randn(5, 32)
    logits = head(hidden, table)
    assert logits.shape == (5, config.vocab_size)
    transformed = torch.nn.functional.layer_norm(
        torch.nn.functional.gelu(head.dense(hidden)), (32,), eps=1e-12
    )
    torch.testing.assert_close(logits, transformed @ table.T, rtol=0, atol=1e-5)
    with torch.no_grad():
        head.bias[7] = 2.0
    torch.testing.assert_close(head(hidden, table)[:, 7], logits[:, 7] + 2.0)
    logits.sum().backward()
    assert table.grad is not None
    assert table.grad.abs().min(dim=1).values.max() > 0


def test_the_masked_lm_head_of_a_factorised_encoder_works_in_the_narrow_size() -> None:
    config = tiny_config(embedding_size=16, num_hidden_groups=1)
    head = MaskedLMHead(config)
    assert head.dense.weight.shape == (16, 32)
    assert head(torch.randn(3, 32), torch.randn(config.vocab_size, 16)).shape == (3, config.vocab_size)


def test_the_next_sentence_head_is_tanh_between_two_linear_layers() -> None:
    head = NextSentenceHead(tiny_config(hidden_size=2, num_attention_heads=1))
    with torch.no_grad():
        head.pooler.weight.copy_(torch.eye(2))
        head.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    logits = head(torch.tensor([[0.5, 1.0]]))
    torch.testing.assert_close(logits, torch.tensor([[0.46211716, -0.76159416]]))
