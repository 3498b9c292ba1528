"""Adapter: runs a language model in this process by transformers, with a LoRA adapter if there is one.

For models that openvino-genai does not read, and for GPUs: any folder of a Hugging Face model, or
a GGUF file. Nothing is fetched: a model that is not on the disk is an error. Decoding is greedy
and, since transformers binds no grammar, free: what is not the JSON that was asked for is refused
by the parser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reporting.language.chat import render_chat
from reporting.language.deadline import Deadline
from reporting.language.in_process import Generation, InProcessModel
from reporting.language.weights import INSTALL, MissingLanguageModelError
from reporting.refine.port import CompletionRequest, LanguageModelError


class LocalModel(InProcessModel[tuple[Any, Any]]):
    """A language model in this process.

    Parameters
    ----------
    model : Path
        Folder of a Hugging Face model, or GGUF file.
    adapter : Path or None
        Folder of a LoRA adapter as PEFT saves it; merged into the weights at loading.
    device : str
        ``cpu``, ``cuda:0``, or ``auto``: the GPU if there is one.
    """

    def __init__(self, model: Path, *, adapter: Path | None = None, device: str = "auto") -> None:
        super().__init__(model, adapter)
        self._device = device

    def _read(self) -> tuple[Any, Any]:
        """Return the model and its tokenizer."""
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            device = _choose_device(self._device, has_gpu=torch.cuda.is_available())
            place, options = _locate(self._model)
            tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, **options)
            kind = torch.float32 if device == "cpu" else torch.bfloat16
            model: Any = AutoModelForCausalLM.from_pretrained(
                place, local_files_only=True, dtype=kind, **options
            )
            if self._adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, self._adapter).merge_and_unload()
            return model.to(device).eval(), tokenizer
        except ImportError as exc:
            raise MissingLanguageModelError(
                f"{exc.name or 'A library'} is not installed: {INSTALL}."
            ) from exc
        except (OSError, ValueError, RuntimeError, KeyError) as exc:
            raise LanguageModelError("transformers cannot load the language model or its adapter.") from exc

    def _generate(
        self, loaded: tuple[Any, Any], request: CompletionRequest, deadline: Deadline
    ) -> Generation:
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        class Watch(StoppingCriteria):
            def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
                return torch.full((input_ids.shape[0],), deadline.is_over, device=input_ids.device)

        model, tokenizer = loaded
        prompt = tokenizer(
            render_chat(tokenizer, request.system, request.user),
            add_special_tokens=False,
            return_tensors="pt",
        ).to(model.device)
        length = int(prompt.input_ids.shape[1])
        try:
            with torch.inference_mode():
                output = model.generate(
                    **prompt,
                    max_new_tokens=request.max_tokens,
                    do_sample=False,
                    stopping_criteria=StoppingCriteriaList([Watch()]),
                    pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                )
        except (RuntimeError, ValueError) as exc:
            raise LanguageModelError("transformers broke down while it generated.") from exc
        deadline.require()
        tokens = output[0, length:]
        return Generation(
            text=str(tokenizer.decode(tokens, skip_special_tokens=True)),
            prompt_tokens=length,
            completion_tokens=len(tokens),
        )


def _choose_device(wanted: str, *, has_gpu: bool) -> str:
    if wanted == "auto":
        return "cuda:0" if has_gpu else "cpu"
    return wanted.lower()


def _locate(model: Path) -> tuple[Path, dict[str, str]]:
    """Return what ``from_pretrained`` takes: a folder, and the file in it for GGUF."""
    return (model.parent, {"gguf_file": model.name}) if model.is_file() else (model, {})
