"""Pure. How a prompt and its answer are written for a model's tokenizer: one form for training and serving.

A model answers well only to the form that it was trained on, so every backend and every
training recipe writes its prompts here. The special tokens are part of the text: encode it
with ``add_special_tokens=False``.
"""

from __future__ import annotations

from typing import Any, Final

#: For models without a chat template (``facebook/opt-1.3b``).
_PLAIN_FORM: Final = "{system}\n\n{user}\n\nAnswer:\n"


def render_chat(tokenizer: Any, system: str, user: str) -> str:
    """Return the prompt as text, up to and with the mark after which the model answers.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase or openvino_genai.Tokenizer
        Its own chat template is used; both give the same text.
    system, user : str
        The two messages (`reporting.refine.port.CompletionRequest`).
    """
    if not getattr(tokenizer, "chat_template", None):
        return _PLAIN_FORM.format(system=system, user=user)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    if not hasattr(tokenizer, "convert_tokens_to_ids"):  # openvino-genai's own tokenizer
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
    from jinja2.exceptions import TemplateError

    try:
        return _apply(tokenizer, messages)
    except TemplateError:  # templates that know no system message, Gemma's for one
        return _apply(tokenizer, [{"role": "user", "content": f"{system}\n\n{user}"}])


def end_answer(tokenizer: Any, answer: str) -> str:
    """Return an answer as a model is trained to give it: with the token that ends it."""
    return f"{answer}{tokenizer.eos_token or ''}"


def _apply(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
