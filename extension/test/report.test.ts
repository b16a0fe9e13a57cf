import { expect, test } from "vitest";
import { statisticsPage } from "../src/report";

test("figures become a table, groups become headings, units come from the names", () => {
  const page = statisticsPage({
    engine: { num_requests: 1234, latency_p50_ms: 48.31, accept_rate: 0.345, pool_bytes: 3_145_728, tokens_per_step: 2.4567 },
    origins: { pool: { num_accepted_tokens: 7, num_chars_accepted: 20 } },
    missing: null,
    empty: {},
  });
  expect(page).toBe(`# Forelook statistics

Counts and times only, stored on this machine; never text.

## Engine

| | |
|---|---:|
| Requests | 1,234 |
| Latency p50 | 48 ms |
| Accept rate | 35% |
| Pool | 3 MiB |
| Tokens per step | 2.46 |

## Origins

### Pool

| | |
|---|---:|
| Accepted tokens | 7 |
| Characters accepted | 20 |
`);
});

test("text cannot break out of its cell", () => {
  expect(statisticsPage({ model: "a|b\n# c [x](y)" })).toContain("| Model | a\\|b # c \\[x\\](y) |");
});
