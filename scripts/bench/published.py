"""What the paper measured, to stand next to our figures: Fu et al., arXiv 2402.02057, on A100 GPUs."""

from __future__ import annotations

HARDWARE = "one A100, CodeLlama and Llama-2-chat of 7 B parameters, fp16"
SPEED_UP_7B = {"humaneval": 2.25, "humaneval-infilling": 1.55, "mbpp": 1.87, "gsm8k": 1.89, "mtbench": 1.64}
"""Speed-up over transformers' greedy decoding by data set, without FlashAttention."""
WITH_FLASH_ATTENTION = {"mtbench": 1.90, "classeval": 2.75}
"""The same with FlashAttention; for ClassEval the middle of the published range of 2.7 to 2.8."""
ABLATION_7B_MTBENCH: dict[tuple[int, int, int, bool], tuple[float, float | None]] = {
    (1, 5, 30, False): (1.04, None),
    (30, 5, 1, False): (1.61, None),
    (15, 5, 15, False): (1.78, None),
    (15, 5, 15, True): (1.88, 2.05),
}
"""(W, N, G, prompt as reference) → speed-up and step compression, as far as they were published."""
PROMPT_LOOKUP_7B_MTBENCH = 1.44
PARALLEL_8_GPUS = {"lookahead parallelism": (3.87, 3.99), "tensor and pipeline parallelism": (0.71, 0.82)}
"""Range of the 7 B models' speed-up over one GPU's greedy decoding, HumanEval and ClassEval."""
