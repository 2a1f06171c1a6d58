"""`NativeEncoder`: the forward pass of an encoder in C, on packed tokens, without torch.

1. Sequences are sorted by length, longest first, and cut into chunks of about CHUNK_TOKENS tokens.
2. Each thread makes one call into the library, which takes chunks until there is none left.
3. A chunk goes through all layers on one core. A thread that finds no chunk left takes a share of those that others compute, so that
   one long text alone keeps all threads busy, and none is idle while the last chunks of a batch are under way.

Every row is computed the same way whatever stands beside it, so neither batches nor threads change a bit of the result.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import DeviceError
from embedkit.machine import num_cores
from embedkit.model.config import EncoderConfig
from embedkit.native.dispatch import why_not_here
from embedkit.native.library import STOPPED, Batch, BatchProgress, Crew, NativePrecision, load_library
from embedkit.native.merging import check_merging
from embedkit.native.packing import Float32, PackedModel, aligned_bytes
from embedkit.native.threads import on_threads

Int64 = NDArray[np.int64]

# Enough rows that a panel of weights is used many times, few enough that what passes between layers stays in cache.
CHUNK_TOKENS = 192
# A text is shared among threads that get this many of its tokens each, at least: it takes 60 µs to wake one.
SHARED_TOKENS = 32
# Of `EncoderConfig.attention_variants`, what is computed here, too.
VARIANTS_HERE = (
    "scaled rotary positions",
    "scores that fall with the distance (ALiBi)",
    "a bias before attention alone",
    "a gate of its own kind",
    "global layers that are not the first",
    "causal attention",
    "fewer key than query heads",
    "norms of queries and keys",
    "an RMS norm",
    "embeddings without a norm, or scaled",
    "norms before and after a sublayer",
    "heads of another size",
    "scores of another scale",
    "no positions",
    "another largest distance",
    "disentangled attention",
    "a second norm behind attention",
)


def why_not(config: EncoderConfig, precision: NativePrecision) -> str | None:
    """Say why this model cannot run natively here in this precision; None where it can."""
    return why_not_here(precision) or _why_not_shape(config)


def _why_not_shape(config: EncoderConfig) -> str | None:
    named = [what for what in config.attention_variants if what not in VARIANTS_HERE]
    if config.scaled_by_length:
        named.append("rotary positions that are scaled by a text's length")
    if config.disentangled is not None and config.disentangled.conv_kernel_size:
        named.append("a convolution behind the first layer")
    if config.routed is not None:
        named.append(config.routed)
    if config.norm_first and config.num_distinct_layers < config.num_hidden_layers:
        named.append("norms before layers that share weights")
    if named:
        return f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} not written natively"
    multiple = 32 if config.position == "rope" else 16  # of rotary heads the halves are whole vectors
    if config.head_size % multiple:
        what = "rotary attention" if config.position == "rope" else "attention"
        return f"the head size is {config.head_size}; native {what} takes multiples of {multiple}"
    if config.hidden_size % 16:
        return f"the hidden size is {config.hidden_size}; native norms take multiples of 16"
    if config.embedding_size is not None and config.embedding_size % 16:
        return f"the embedding size is {config.embedding_size}; native norms take multiples of 16"
    return None


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is written of a batch: all tokens' vectors, those of first ones, or means; and which keys are attended to."""

    first_only: bool = False
    mean: bool = False
    skip: int = 0
    num_keys: Int64 | None = None


class NativeEncoder:
    """Runs the encoder of a model with the library's kernels: any of those of which `why_not` is None.

    `weights` are float32 under this project's parameter names, as `TransformerEncoder.state_dict` gives them. Calls
    from several threads wait for one another. With `merge_tokens` so large a share of a sequence's tokens is merged into
    others in each layer; see `embedkit.inference.token_merging`.

    Raises:
        DeviceError: `why_not` has a reason.
        ValueError: a weight is missing or of another shape, `threads` is below 1, or `merge_tokens` is out of range, or
            above 0 for a model whose tokens cannot be merged.
    """

    def __init__(
        self,
        config: EncoderConfig,
        weights: Mapping[str, Float32],
        *,
        precision: NativePrecision,
        threads: int | None = None,
        merge_tokens: float = 0.0,
    ) -> None:
        if reason := why_not(config, precision):
            raise DeviceError(f"native {precision} cannot run this model: {reason}. Use the torch backend")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; it must be at least 1")
        check_merging(merge_tokens, config)
        self.config = config
        self.merge_tokens = merge_tokens
        self.precision: NativePrecision = precision
        self.threads = threads or num_cores()
        self._model = PackedModel(config, weights, precision)
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(self.threads, "embedkit-native")
        self._workspaces: list[NDArray[np.uint8]] = []
        self._capacity = (0, 0)  # rows of a chunk, tokens of a sequence

    def hidden_states(
        self,
        input_ids: Int64,
        lengths: Int64,
        token_type_ids: Int64 | None = None,
        *,
        layers: int | None = None,
        num_keys: Int64 | None = None,
    ) -> Float32:
        """Encode packed sequences: one vector a token after `layers` layers, or after all.

        Tokens that were merged have the same vector. Of each sequence the first `num_keys` tokens are attended to (None: all); others are
        attended to by none, not even by themselves.

        Shapes:
            input_ids, token_type_ids: (N,) of B sequences one after another; lengths, num_keys: (B,), N in all
            returns: (N, D)
        Raises:
            ValueError: lengths, ids or the number of layers are out of range, or do not fit together.
        """
        return self._encode(input_ids, lengths, token_type_ids, layers, Written(num_keys=num_keys))

    def first_states(
        self,
        input_ids: Int64,
        lengths: Int64,
        token_type_ids: Int64 | None = None,
        *,
        layers: int | None = None,
    ) -> Float32:
        """Encode as `hidden_states` does, for the first token of each sequence alone: the same bits, but fewer products.

        The last layer needs the keys and values of all tokens; its queries and all that follows are of first ones alone.

        Shapes:
            returns: (B, D)
        """
        return self._encode(input_ids, lengths, token_type_ids, layers, Written(first_only=True))

    def mean_states(
        self,
        input_ids: Int64,
        lengths: Int64,
        token_type_ids: Int64 | None = None,
        *,
        layers: int | None = None,
        skip: int = 0,
    ) -> Float32:
        """Encode as `hidden_states` does, and take the mean of each sequence's tokens behind the first `skip`; of none it is 0.

        Each thread takes those of its sequences, so that no thread waits while another one does it for all.

        Shapes:
            returns: (B, D)
        Raises:
            ValueError: as `hidden_states`, or `skip` is below 0.
        """
        if skip < 0:
            raise ValueError(f"skip is {skip}; it must be at least 0")
        return self._encode(input_ids, lengths, token_type_ids, layers, Written(mean=True, skip=skip))

    def _encode(
        self,
        input_ids: Int64,
        lengths: Int64,
        token_type_ids: Int64 | None,
        layers: int | None,
        written: Written,
    ) -> Float32:
        input_ids = np.ascontiguousarray(input_ids, np.int64)
        lengths = np.ascontiguousarray(lengths, np.int64)
        types = None
        if token_type_ids is not None and self.config.type_vocab_size:
            types = np.ascontiguousarray(token_type_ids, np.int64)
        layers = self.config.num_hidden_layers if layers is None else layers
        self._check(input_ids, lengths, types, layers)
        if written.num_keys is not None:
            keys = np.ascontiguousarray(written.num_keys, np.int64)
            self._check_keys(keys, lengths)
            written = replace(written, num_keys=keys)
        rows = len(lengths) if written.first_only or written.mean else len(input_ids)
        hidden = np.empty((rows, self.config.hidden_size), np.float32)
        if len(input_ids):
            with self._lock:
                self._run((input_ids, lengths, types), layers, hidden, written)
        return hidden

    def _check(self, input_ids: Int64, lengths: Int64, types: Int64 | None, layers: int) -> None:
        config = self.config
        if not 1 <= layers <= config.num_hidden_layers:
            raise ValueError(f"layers is {layers}; this encoder has 1 to {config.num_hidden_layers}")
        if input_ids.ndim != 1 or lengths.ndim != 1 or (types is not None and types.shape != input_ids.shape):
            shapes = [array.shape for array in (input_ids, lengths, types) if array is not None]
            raise ValueError(
                f"ids, lengths and token types have the shapes {shapes}; packed ones are (N,), (B,) and (N,)"
            )
        if lengths.sum() != len(input_ids):
            raise ValueError(f"lengths add up to {lengths.sum()}; input_ids has {len(input_ids)} tokens")
        if not len(lengths):
            return
        if lengths.min() < 1:
            raise ValueError(f"sequence {lengths.argmin()} has {lengths.min()} tokens; each needs at least 1")
        if lengths.max() > config.max_tokens:
            raise ValueError(
                f"a sequence has {lengths.max()} tokens; this encoder takes at most {config.max_tokens}"
            )
        for what, ids, size in (
            ("token", input_ids, config.vocab_size),
            ("token type", types, config.type_vocab_size),
        ):
            if ids is not None and (ids.min() < 0 or ids.max() >= size):
                worst = ids.max() if ids.max() >= size else ids.min()
                raise ValueError(
                    f"{what} id {worst} is outside of the table of {size}; it must be from 0 to {size - 1}"
                )

    def _check_keys(self, keys: Int64, lengths: Int64) -> None:
        if self.merge_tokens:
            raise ValueError("num_keys goes without merge_tokens: merged tokens have no place of their own")
        if keys.shape != lengths.shape or (keys < 1).any() or (keys > lengths).any():
            raise ValueError(
                f"num_keys is {keys.tolist()[:4]}… for lengths {lengths.tolist()[:4]}…; each must be from 1 to its sequence's length"
            )

    def _run(
        self,
        tokens: tuple[Int64, Int64, Int64 | None],
        layers: int,
        hidden: Float32,
        written: Written,
    ) -> None:
        (input_ids, lengths, types), keys = tokens, written.num_keys
        order = np.argsort(-lengths, kind="stable")
        threads = max(1, min(self.threads, len(input_ids) // SHARED_TOKENS))
        chunks = cut(lengths[order], threads)
        starts = starts_of(lengths)
        sizes = starts_of(lengths[order])[chunks]
        self._reserve(int(np.diff(sizes).max()), int(lengths.max()))
        batch = Batch(
            input_ids=input_ids.ctypes.data,
            token_types=None if types is None else types.ctypes.data,
            starts=starts.ctypes.data,
            order=order.ctypes.data,
            chunks=chunks.ctypes.data,
            num_chunks=len(chunks) - 1,
            num_layers=layers,
            first_only=written.first_only,
            mean=written.mean,
            skip=written.skip,
            merged_share=self.merge_tokens,
            keys=None if keys is None else keys.ctypes.data,
            hidden_states=hidden.ctypes.data,
        )
        memories = (ctypes.c_void_p * threads)(*(each.ctypes.data for each in self._workspaces[:threads]))
        crew = Crew(ctypes.addressof(memories), threads, *self._capacity)
        progress = BatchProgress()
        run = load_library().embedkit_run

        def work(own: int) -> None:
            pointers = (ctypes.byref(each) for each in (self._model.structure, batch, progress, crew))
            run(*pointers, own)

        def stop() -> None:
            progress.next = STOPPED

        if threads == 1 and batch.num_chunks == 1:
            work(0)
        else:  # one thread, too: Ctrl-C then waits for a chunk, not for the batch
            pointed_at = (input_ids, types, keys, starts, order, chunks, hidden, memories)
            list(on_threads(self._pool, work, range(threads), stop=stop, keep=pointed_at))

    def _reserve(self, rows: int, length: int) -> None:
        """Make the workspaces large enough."""
        if rows <= self._capacity[0] and length <= self._capacity[1]:
            return
        capacity = (max(rows, self._capacity[0], CHUNK_TOKENS), max(length, self._capacity[1]))
        size = load_library().embedkit_workspace_bytes(ctypes.byref(self._model.structure), *capacity)
        self._workspaces, self._capacity = [], (0, 0)  # and so it stays where memory does not suffice
        self._workspaces = [aligned_bytes(size) for _ in range(self.threads)]
        self._capacity = capacity


def starts_of(lengths: Int64) -> Int64:
    """Return where each of B sequences begins and the last one ends: (B + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths)])


def cut(lengths: Int64, threads: int) -> Int64:
    """Cut sequences into chunks of whole ones: (C + 1,) of which chunk c holds those from c to c + 1.

    A chunk has at most CHUNK_TOKENS tokens, unless one sequence alone has more; and no more than one thread's share, so
    that a few texts keep all threads busy.
    """
    most = min(CHUNK_TOKENS, -(-int(lengths.sum()) // threads))
    bounds, tokens = [0], 0
    for number, length in enumerate(lengths.tolist()):
        if tokens and tokens + length > most:
            bounds.append(number)
            tokens = 0
        tokens += length
    return np.array([*bounds, len(lengths)], np.int64)
