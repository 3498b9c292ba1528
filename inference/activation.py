"""Pure. From what a network gives out to one probability a label."""

from __future__ import annotations

from typing import Literal

import torch

from dicom_node.errors import PermanentError


class UnexpectedOutputError(PermanentError):
    """A network's output is not what its card says; correct labels or network.activation there."""


def to_probabilities(
    output: object, labels: int, activation: Literal["sigmoid", "softmax", "none"]
) -> torch.Tensor:
    """Turn a network's output into probabilities.

    Parameters
    ----------
    output : Tensor
        (N, channels, ...) logits, or probabilities when the activation is ``none``.
    labels : int
        Labels on the card. Except for sigmoid, one channel more than that is the background, the first.
    activation : str
        From the card.

    Returns
    -------
    Tensor
        (N, labels, ...) float32, 0 to 1.

    Raises
    ------
    UnexpectedOutputError
        If the output is no tensor, or its channels do not fit the labels.
    """
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or not output.is_floating_point():  # noqa: PLR2004
        raise UnexpectedOutputError("The network does not give one array of numbers: it cannot be read so.")
    channels = output.shape[1]
    has_background = activation != "sigmoid" and channels == labels + 1
    if channels != labels and not has_background:
        raise UnexpectedOutputError(
            f"The network gives {channels} channels for the {labels} labels of its card: list every channel, "
            "but with softmax not the background, which comes first."
        )
    values = output.float()
    if activation == "sigmoid":
        return torch.sigmoid(values)
    if activation == "softmax":
        values = torch.softmax(values, dim=1)
    return values[:, 1:] if has_background else values
