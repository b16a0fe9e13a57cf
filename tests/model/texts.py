"""Texts that tokenizers disagree about."""

from __future__ import annotations

TRICKY = (
    "x = 1234567 + 0x1F  # été, naïve ½ ²³ ١٢٣\n\n\n\t\tdef f(self, a1b2):\r\n    return 'don\\'t' \"we'll\"  \n"
    "漢字と仮名 한국어 🙂🙂 $<=>^~|` {}[]();:!?...--- \n   \n  )\n        x_y-z__ \tq\n"
)
