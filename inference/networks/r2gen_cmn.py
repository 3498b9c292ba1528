"""Pure. R2GenCMN: writes a report from radiographs, word by word, through a memory that both sides share.

A visual extractor gives patches, an encoder-decoder gives words. Patches and words alike query one matrix of
memory vectors: each head takes the few that answer best and adds their weighted mean. Every parameter has the
name that the published network gives it, so that its checkpoints load (`inference.r2gen_import`). Tokens are
numbers: 0 begins, ends and pads, words count from 1 (`inference.report_vocabulary`).

References
----------
Chen et al., Cross-modal memory networks for radiology report generation, doi:10.18653/v1/2021.acl-long.459
(code under Apache-2.0, whose names of parameters are followed); Vaswani et al., arXiv:1706.03762.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional

from inference.radiograph_preparation import GREY_DEVIATION, GREY_MEAN

KeysAndValues = tuple[torch.Tensor, torch.Tensor]
"""Projected keys and values: (N, heads, length, width) each."""

TORCHVISION_EXTRACTORS: Final = ("resnet18", "resnet50", "resnet101")
"""Extractors whose layers torchvision makes; the published network has ``resnet101``. Others are timm's."""

_COLOUR_MEAN: Final = (0.485, 0.456, 0.406)
_COLOUR_DEVIATION: Final = (0.229, 0.224, 0.225)
"""Of ImageNet; torchvision's extractors take colours standardised by them."""

_UNIT_PER_DEVIATION: Final = 2.0 * GREY_DEVIATION
"""From standardised grey to -1 (black) to 1 (white), which timm's encoders take here."""

_MEMORY_DROPOUT: Final = 0.1
"""Dropout of attention weights in the published network, whatever else is dropped."""


class VisualExtractor(nn.Module):
    """The convolutions: an image in, patch features out.

    Parameters
    ----------
    extractor : str
        One of `TORCHVISION_EXTRACTORS`, or the name of a timm network.
    pool : int
        Side of the squares of patches that become one, their mean.
    """

    def __init__(self, extractor: str, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool
        self.is_standardised_colour = extractor in TORCHVISION_EXTRACTORS
        if self.is_standardised_colour:
            whole = getattr(torchvision.models, extractor)(weights=None)
            self.model: nn.Module = nn.Sequential(*list(whole.children())[:-2])
            self.channels = int(whole.fc.in_features)
        else:
            encoder = timm.create_model(extractor, pretrained=False, features_only=True, out_indices=(-1,))
            self.model = encoder
            self.channels = int(cast("Any", encoder).feature_info.channels()[-1])
        self.register_buffer("mean", torch.tensor(_COLOUR_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_COLOUR_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (N, patches, channels) of (N, 1, H, W) standardised grey, patches row by row."""
        if self.is_standardised_colour:
            unit = images * GREY_DEVIATION + GREY_MEAN
            maps = self.model((unit - cast("torch.Tensor", self.mean)) / cast("torch.Tensor", self.deviation))
        else:
            maps = self.model((images * _UNIT_PER_DEVIATION).expand(-1, 3, -1, -1))[-1]
        if self.pool > 1:
            maps = functional.avg_pool2d(maps, self.pool)
        return cast("torch.Tensor", maps).flatten(2).transpose(1, 2)


class LayerNorm(nn.Module):
    """Normalisation over the last axis by the unbiased deviation, to which epsilon is added."""

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(width))
        self.b_2 = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (..., width)."""
        deviation, mean = torch.std_mean(x, dim=-1, keepdim=True)
        return self.a_2 * (x - mean) / (deviation + self.epsilon) + self.b_2


class _Projections(nn.Module):
    """The four linear maps of an attention: queries, keys, values, output."""

    def __init__(self, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            message = f"d_model: {width} is not a multiple of {heads} heads"
            raise ValueError(message)
        self.heads = heads
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, heads, length, width / heads) scaled queries of (N, length, width)."""
        return self._split(self.linears[0](x)) / math.sqrt(x.shape[-1] // self.heads)

    def project(self, x: torch.Tensor) -> KeysAndValues:
        """Return keys and values of (N, length, width)."""
        return self._split(self.linears[1](x)), self._split(self.linears[2](x))

    def join(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, length, width) of (N, heads, length, width / heads)."""
        return cast("torch.Tensor", self.linears[3](x.transpose(1, 2).flatten(2)))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        count, length, width = x.shape
        return x.view(count, length, self.heads, width // self.heads).transpose(1, 2)


class MultiHeadedAttention(_Projections):
    """Scaled dot-product attention with several heads."""

    def forward(
        self, x: torch.Tensor, given: KeysAndValues, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend from (N, length, width) to projected keys and values where ``mask`` is true."""
        keys, values = given
        scores = self.query(x) @ keys.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return self.join(self.dropout(scores.softmax(dim=-1)) @ values)


class MultiThreadMemory(_Projections):
    """Queries a memory with several heads (threads), each answered by its ``top_k`` best vectors alone."""

    def __init__(self, heads: int, width: int, dropout: float, top_k: int) -> None:
        super().__init__(heads, width, dropout)
        self.top_k = top_k

    def forward(self, x: torch.Tensor, given: KeysAndValues) -> torch.Tensor:
        """Return the (N, length, width) response to each of (N, length, width).

        Parameters
        ----------
        x : torch.Tensor
            What queries.
        given : tuple of torch.Tensor
            `project` of the (1, size, width) memory.
        """
        keys, values = given
        scores = self.query(x) @ keys.transpose(-2, -1)
        best, chosen = scores.topk(min(self.top_k, scores.shape[-1]), dim=-1)
        weights = self.dropout(best.softmax(dim=-1))
        size, width = values.shape[-2:]
        offsets = torch.arange(self.heads, device=x.device).view(1, -1, 1, 1) * size
        answers = functional.embedding(chosen + offsets, values.reshape(-1, width))
        return self.join((weights.unsqueeze(-2) @ answers).squeeze(-2))


class FeedForward(nn.Module):
    """Two linear maps with a rectifier and dropout in between."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, inner)
        self.w_2 = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to (..., width)."""
        return cast("torch.Tensor", self.w_2(self.dropout(self.w_1(x).relu())))


class SublayerConnection(nn.Module):
    """What surrounds each part of a layer: normalised input, dropped output, added to what came."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def add(self, x: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """Return ``x`` with a part's output added."""
        return x + cast("torch.Tensor", self.dropout(change))


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, width: int, inner: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MultiHeadedAttention(heads, width, _MEMORY_DROPOUT)
        self.feed_forward = FeedForward(width, inner, dropout)
        self.sublayer = nn.ModuleList(SublayerConnection(width, dropout) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform (N, patches, width)."""
        attend, forward = (cast("SublayerConnection", part) for part in self.sublayer)
        seen = attend.norm(x)
        x = attend.add(x, self.self_attn(seen, self.self_attn.project(seen)))
        return forward.add(x, self.feed_forward(forward.norm(x)))


class DecoderLayer(nn.Module):
    """Self-attention over the words so far, attention to the patches, then feed-forward."""

    def __init__(self, width: int, inner: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MultiHeadedAttention(heads, width, _MEMORY_DROPOUT)
        self.src_attn = MultiHeadedAttention(heads, width, _MEMORY_DROPOUT)
        self.feed_forward = FeedForward(width, inner, dropout)
        self.sublayer = nn.ModuleList(SublayerConnection(width, dropout) for _ in range(3))

    def forward(
        self,
        x: torch.Tensor,
        source: KeysAndValues,
        past: KeysAndValues | None = None,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, KeysAndValues]:
        """Transform (N, length, width), and return keys and values of all words up to here.

        Parameters
        ----------
        x : torch.Tensor
            Words; with ``past``, those that follow it.
        source : tuple of torch.Tensor
            ``src_attn.project`` of the encoded patches.
        past : tuple of torch.Tensor or None
            Keys and values of the words before.
        mask : torch.Tensor or None
            True where a word may look.
        """
        attend, look, forward = (cast("SublayerConnection", part) for part in self.sublayer)
        seen = attend.norm(x)
        present = self.self_attn.project(seen)
        if past is not None:
            present = (torch.cat((past[0], present[0]), dim=2), torch.cat((past[1], present[1]), dim=2))
        x = attend.add(x, self.self_attn(seen, present, mask))
        x = look.add(x, self.src_attn(look.norm(x), source))
        return forward.add(x, self.feed_forward(forward.norm(x))), present


class _Layers(nn.Module):
    """Layers in a row and the normalisation behind them."""

    def __init__(self, layers: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = LayerNorm(width)


class Embeddings(nn.Module):
    """A vector a token, scaled by the root of its width."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.lut = nn.Embedding(tokens, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return (N, length, width) of (N, length) tokens."""
        return cast("torch.Tensor", self.lut(tokens)) * math.sqrt(self.lut.embedding_dim)


class PositionalEncoding(nn.Module):
    """Sines and cosines of the position, added."""

    def __init__(self, width: int, dropout: float, positions: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        place = torch.arange(positions).unsqueeze(1).float()
        rate = torch.exp(torch.arange(0, width, 2).float() * -(math.log(10_000.0) / width))
        table = torch.zeros(1, positions, width)
        table[0, :, 0::2] = torch.sin(place * rate)
        table[0, :, 1::2] = torch.cos(place * rate)
        self.register_buffer("pe", table)

    def forward(self, x: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Add to (N, length, width), whose first entry is at position ``first``."""
        table = cast("torch.Tensor", self.pe)
        return cast("torch.Tensor", self.dropout(x + table[:, first : first + x.shape[1]]))


class Transformer(nn.Module):
    """The encoder-decoder, with the memory that it shares with the patches."""

    def __init__(self, arguments: _Sizes, cmn: MultiThreadMemory) -> None:
        super().__init__()
        width, drop = arguments.d_model, arguments.dropout
        shape = (width, arguments.d_ff, arguments.heads, drop)
        self.encoder = _Layers([EncoderLayer(*shape) for _ in range(arguments.layers)], width)
        self.decoder = _Layers([DecoderLayer(*shape) for _ in range(arguments.layers)], width)
        self.src_embed = nn.Sequential(PositionalEncoding(width, drop, arguments.positions))
        self.tgt_embed = nn.Sequential(
            Embeddings(width, arguments.words + 1), PositionalEncoding(width, drop, arguments.positions)
        )
        self.cmn = cmn
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Encode (N, patches, width)."""
        x = self.src_embed(x)
        for layer in self.encoder.layers:
            x = layer(x)
        return cast("torch.Tensor", self.encoder.norm(x))

    def embed(self, tokens: torch.Tensor, memory: KeysAndValues, first: int = 0) -> torch.Tensor:
        """Return (N, length, width) of tokens, with the memory's responses added."""
        words, places = self.tgt_embed
        x = places(words(tokens), first)
        return cast("torch.Tensor", x + self.cmn(x, memory))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Sizes of the encoder-decoder, as `R2GenCMN` documents them."""

    words: int
    d_model: int
    d_ff: int
    heads: int
    layers: int
    memory_size: int
    top_k: int
    dropout: float
    feature_dropout: float
    positions: int
    is_normalised: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Writing:
    """Reports while they are written: what does not change, and what the words so far left.

    Attributes
    ----------
    memory : tuple of torch.Tensor
        Keys and values of the shared memory.
    sources : tuple
        For each layer, keys and values of the patches, (N, heads, patches, width).
    past : tuple
        For each layer, those of the words so far; empty at the beginning.
    length : int
        Words so far.
    """

    memory: KeysAndValues
    sources: tuple[KeysAndValues, ...]
    past: tuple[KeysAndValues, ...] = ()
    length: int = 0

    def take(self, rows: torch.Tensor) -> Writing:
        """Return the reports of the given rows, which may repeat."""
        return Writing(
            memory=self.memory,
            sources=tuple((keys[rows], values[rows]) for keys, values in self.sources),
            past=tuple((keys[rows], values[rows]) for keys, values in self.past),
            length=self.length,
        )


class EncoderDecoder(nn.Module):
    """From patches to the probabilities of words."""

    def __init__(self, features: int, sizes: _Sizes) -> None:
        super().__init__()
        width = sizes.d_model
        parts = [nn.Linear(features, width), nn.ReLU(), nn.Dropout(sizes.feature_dropout)]
        self.att_embed = nn.Sequential(*([nn.BatchNorm1d(features)] if sizes.is_normalised else []), *parts)
        self.cmn = MultiThreadMemory(sizes.heads, width, _MEMORY_DROPOUT, sizes.top_k)
        self.model = Transformer(sizes, self.cmn)
        self.logit = nn.Linear(width, sizes.words + 1)
        self.memory_matrix = nn.Parameter(torch.empty(sizes.memory_size, width).normal_(0.0, 1.0 / width))

    def memory(self) -> KeysAndValues:
        """Return keys and values of the shared memory."""
        return self.cmn.project(self.memory_matrix.unsqueeze(0))

    def encode(self, patches: torch.Tensor, memory: KeysAndValues) -> torch.Tensor:
        """Return (N, patches, width) encoded patches of (N, patches, features)."""
        x = self.att_embed(patches.flatten(0, 1)).view(*patches.shape[:2], -1)
        return self.model.encode(x + self.cmn(x, memory))

    def sources(self, encoded: torch.Tensor) -> tuple[KeysAndValues, ...]:
        """Return keys and values of encoded patches for each layer of the decoder."""
        layers = (cast("DecoderLayer", layer) for layer in self.model.decoder.layers)
        return tuple(layer.src_attn.project(encoded) for layer in layers)

    def decode(
        self, x: torch.Tensor, writing: Writing, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, tuple[KeysAndValues, ...]]:
        """Return (N, length, words + 1) log-probabilities of the words after (N, length, width)."""
        past: list[KeysAndValues] = []
        for index, layer in enumerate(self.model.decoder.layers):
            before = writing.past[index] if writing.past else None
            x, present = layer(x, writing.sources[index], before, mask)
            past.append(present)
        return functional.log_softmax(self.logit(self.model.decoder.norm(x)), dim=-1), tuple(past)


class R2GenCMN(nn.Module):
    """A report writer.

    Parameters
    ----------
    words : int
        Size of the vocabulary, without token 0.
    extractor : str
        The convolutions (`VisualExtractor`).
    views : int
        Images of one report, whose patches are joined: 1, or 2 as for IU X-ray.
    pool : int
        Side of the squares of patches that become one; the published network has 1.
    d_model, d_ff, heads, layers : int
        Sizes of the encoder and of the decoder.
    memory_size, top_k : int
        Vectors of the shared memory, and how many of them answer a query.
    dropout, feature_dropout : float
        Probabilities of dropping inside the layers, and of dropping embedded patches.
    positions : int
        Longest sequence of patches or words; the published network has 5,000.
    normalise_features : bool
        Whether features are normalised by their statistics over the training images before they are
        embedded: an option of the published code, off in its checkpoints.

    Raises
    ------
    ValueError
        If the sizes do not fit each other.
    """

    def __init__(
        self,
        words: int,
        extractor: str = "resnet101",
        *,
        views: int = 1,
        pool: int = 1,
        d_model: int = 512,
        d_ff: int = 512,
        heads: int = 8,
        layers: int = 3,
        memory_size: int = 2048,
        top_k: int = 32,
        dropout: float = 0.1,
        feature_dropout: float = 0.5,
        positions: int = 5000,
        normalise_features: bool = False,
    ) -> None:
        super().__init__()
        if min(words, views, pool, layers, memory_size, top_k) < 1 or d_model % 2:
            message = "words, views, pool, layers, memory_size and top_k are at least 1, d_model is even"
            raise ValueError(message)
        self.views = views
        self.visual_extractor = VisualExtractor(extractor, pool)
        sizes = _Sizes(
            words=words,
            d_model=d_model,
            d_ff=d_ff,
            heads=heads,
            layers=layers,
            memory_size=memory_size,
            top_k=top_k,
            dropout=dropout,
            feature_dropout=feature_dropout,
            positions=positions,
            is_normalised=normalise_features,
        )
        self.encoder_decoder = EncoderDecoder(self.visual_extractor.channels, sizes)

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Return (N, views * patches, channels) features of (N, views, H, W) standardised grey."""
        count = images.shape[0]
        features = self.visual_extractor(images.flatten(0, 1).unsqueeze(1))
        return cast("torch.Tensor", features.reshape(count, -1, features.shape[-1]))

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of the words of known reports.

        Parameters
        ----------
        images : torch.Tensor
            (N, views, H, W) standardised grey.
        tokens : torch.Tensor
            (N, length) int64: 0, the words, then zeros.

        Returns
        -------
        torch.Tensor
            (N, length, words + 1): of the token after each.
        """
        return self.follow(self.patches(images), tokens)

    def follow(self, patches: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return what `forward` does, of (N, patches, channels) features."""
        return self.continue_from(self.encode(patches), tokens)

    def encode(self, patches: torch.Tensor) -> torch.Tensor:
        """Return (N, patches, d_model) encoded patches of (N, patches, channels) features."""
        part = self.encoder_decoder
        return part.encode(patches, part.memory())

    def continue_from(self, encoded: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return what `forward` does, of (N, patches, d_model) encoded patches."""
        part = self.encoder_decoder
        writing = Writing(memory=part.memory(), sources=part.sources(encoded))
        length = tokens.shape[1]
        is_word = tokens > 0
        is_word[:, 0] = True
        past_only = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask = (is_word.unsqueeze(1) & past_only).unsqueeze(1)
        return part.decode(part.model.embed(tokens, writing.memory), writing, mask)[0]

    def begin(self, patches: torch.Tensor) -> Writing:
        """Begin a report for each of (N, patches, channels) features."""
        part = self.encoder_decoder
        return Writing(memory=part.memory(), sources=part.sources(self.encode(patches)))

    def blank(self, patches: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape that show nothing: their means over the training images."""
        first = self.encoder_decoder.att_embed[0]
        if isinstance(first, nn.BatchNorm1d) and first.running_mean is not None:
            return first.running_mean.to(patches).expand_as(patches)
        return torch.zeros_like(patches)

    def advance(self, writing: Writing, tokens: torch.Tensor) -> tuple[torch.Tensor, Writing]:
        """Add one token to each report.

        Parameters
        ----------
        writing : Writing
            N reports so far.
        tokens : torch.Tensor
            (N,) int64; 0 begins.

        Returns
        -------
        tuple
            (N, words + 1) log-probabilities of the next token, and the reports with this one.
        """
        part = self.encoder_decoder
        x = part.model.embed(tokens.unsqueeze(1), writing.memory, writing.length)
        scores, past = part.decode(x, writing, None)
        return scores[:, -1], Writing(
            memory=writing.memory, sources=writing.sources, past=past, length=writing.length + 1
        )
