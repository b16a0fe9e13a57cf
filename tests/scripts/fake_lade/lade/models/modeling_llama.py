import os
from typing import Any

import transformers

import lade


class LlamaForCausalLM(transformers.LlamaForCausalLM):  # type: ignore[misc,unused-ignore]
    """The last token of an output is W where the prompt is the reference: so a test sees what arrived."""

    def generate(self, *args: Any, **options: Any) -> Any:
        assert os.environ["USE_LADE"] == "1"
        output = super().generate(*args, **options)
        if lade.CONFIG["POOL_FROM_PROMPT"]:
            output[0, -1] = lade.CONFIG["WINDOW_SIZE"]
        return output
