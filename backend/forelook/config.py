"""The table of all settings, as three frozen values. Standard library only.

A new setting is one row here and its use. ``make generate`` writes it to the extension's manifest and to the docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from forelook.errors import ConfigError
from forelook.settings.kinds import (
    DEVICE,
    auto,
    boolean,
    choice,
    integer,
    number,
    path,
    pattern,
    switches,
    text,
    texts,
    unset,
    word_or,
)
from forelook.settings.rows import Audience, Effect, Flag, Setting, check, rows_of, setting

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
MODEL_COMMANDS = ("serve", "complete", "doctor", "status", "stats", "stop", "pool")
"""The commands that name a model."""

SUGGESTIONS, MODEL, WORKSPACE, DECODING = "Suggestions", "Model", "Workspace", "Decoding"
BACKEND, SERVER, HTTP, PLUGIN = "Backend", "Server", "HTTP interfaces", "Editor plug-in"
GROUPS: Mapping[str, str] = {
    SUGGESTIONS: "",
    MODEL: "",
    WORKSPACE: "",
    DECODING: "By default drafts are chosen by their cost; W, N or G switch to lookahead decoding as published.",
    BACKEND: "",
    SERVER: "Listens on a Unix socket that only you can open, or on TCP with a token.",
    HTTP: "OpenAI's, llama.cpp's and Ollama's, for other people's clients; see docs/http.md.",
    PLUGIN: "",
}
"""Groups of settings in their order, with what ``--help`` says about each."""

_BACKENDS_CHOICE = "the backend's choice"
_MAX_LINE_TOKENS = 48  # chosen, not measured
_MAX_BLOCK_TOKENS = 128  # chosen, not measured
_DEADLINE_MS = 400  # chosen, not measured
_LONGEST_S = 10_000_000.0  # chosen, not measured
_HTTP_ADDRESS = pattern(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", "HOST:PORT, such as 127.0.0.1:8012")
_URL = pattern(r"wss?://[^\s/?#@]+(/[^\s?#]*)?", "a ws:// or wss:// address without user or query")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Which model runs, and how it completes. Fields without a name in the table are for tests and benchmarks.

    Raises:
        ConfigError: a value is outside its range.
    """

    model: str | None = setting(
        None, unset(text("a folder, a GGUF file or a hub id of a Llama-family model"), "the default model"),
        "The model to run: a folder, a GGUF file, or a hub id such as `Qwen/Qwen2.5-Coder-1.5B`; `starter-model` for "
        "the small bundled one. The default model if unset.",
        name="model", group=MODEL, machine=True, effect=Effect.OTHER_BACKEND,
        flag=Flag("--model", MODEL_COMMANDS, "PATH_OR_ID"),
    )  # fmt: skip
    revision: str | None = setting(
        None, unset(text("a hub revision")), "The model's revision on the hub: a branch, tag or commit.",
        name="revision", group=MODEL, machine=True, effect=Effect.OTHER_BACKEND,
        flag=Flag("--revision", MODEL_COMMANDS, "REVISION"),
    )  # fmt: skip
    adapter: str | None = setting(
        None, unset(text("a folder with a low-rank adapter"), "the model's own"),
        "Folder of a low-rank adapter (LoRA, as the peft package saves it) that is merged into the model; without a "
        "`model` into the base of the default model.",
        name="adapter", group=MODEL, machine=True, effect=Effect.OTHER_BACKEND,
        flag=Flag("--adapter", MODEL_COMMANDS, "FOLDER"),
    )  # fmt: skip
    device: str = setting(
        "auto", DEVICE, "Where the model runs: `auto`, `cpu`, `cuda` or `cuda:N`.",
        name="device", group=MODEL, machine=True, effect=Effect.OTHER_BACKEND,
        flag=Flag("--device", (*MODEL_COMMANDS, "models"), "DEVICE"),
    )  # fmt: skip
    dtype: str = setting(
        "auto", choice(("auto", "bfloat16", "float16", "float32", "float64", "int8", "int4")),
        "The number format of the weights; `auto`: 8 bits for large models on a CPU, else bfloat16 or the like.",
        name="dtype", group=MODEL, machine=True, effect=Effect.OTHER_BACKEND,
        flag=Flag("--dtype", MODEL_COMMANDS, "DTYPE"),
    )  # fmt: skip
    keep_alive_s: float | None = setting(
        None, unset(number(0.01, _LONGEST_S), "never"),
        "Unload the model after this many idle seconds; it reloads on the next edit.",
        name="keepAlive", group=MODEL, audience=Audience.SHELL,
        flag=Flag("--keep-alive", metavar="SECONDS"),
    )  # fmt: skip
    left_to_right: bool = setting(
        False, boolean(),
        "Accept a model without fill-in-the-middle support. It does not read the text after the cursor; "
        "that text still trims and ends its suggestions.",
        name="leftToRight", group=MODEL, effect=Effect.RELOAD,
        flag=Flag("--left-to-right", ("serve", "complete", "doctor"), means=True),
    )  # fmt: skip

    max_new_tokens: int | None = setting(
        None, unset(integer(1, 4096), _BACKENDS_CHOICE), "Maximum number of tokens in a suggestion.",
        name="maxNewTokens", group=SUGGESTIONS,
        flag=Flag("--max-new-tokens", ("serve", "complete"), "TOKENS"),
    )  # fmt: skip
    deadline_ms: int | None = setting(
        None, unset(integer(1, 600_000), _BACKENDS_CHOICE),
        "Maximum time for a suggestion while you type, in milliseconds; what is usable at that time is shown.",
        name="deadlineMs", group=SUGGESTIONS,
        flag=Flag("--deadline-ms", ("serve", "complete"), "MS", help="Maximum time for a suggestion, in milliseconds."),
    )  # fmt: skip
    # measured: docs/decisions.md, "A prompt's size follows the speed of the device"
    prefill_ms: int = setting(
        800, integer(1, 600_000),
        "Time for a prompt that is not in the cache, in milliseconds. On a slower device prompts are shorter. "
        "While you type at a new place, a third of it is waited for, and the whole prompt follows in the next pause.",
        name="prefillMs", group=MODEL, effect=Effect.RESTART,
        flag=Flag("--prefill-ms", ("serve", "complete"), "MS"),
    )  # fmt: skip

    lookahead_window: int | None = setting(
        None, auto(integer(0, 64)), "Lookahead window size W; 0 disables the lookahead branch.",
        name="lookahead.window", group=DECODING, effect=Effect.RESTART, flag=Flag("--window-size", metavar="W"),
    )  # fmt: skip
    lookahead_ngram: int | None = setting(
        None, auto(integer(2, 16)), "Lookahead n-gram size N, including the key.",
        name="lookahead.ngram", group=DECODING, effect=Effect.RESTART, flag=Flag("--ngram-size", metavar="N"),
    )  # fmt: skip
    lookahead_max_candidates: int | None = setting(
        None, auto(integer(0, 64)), "Maximum number of n-grams G verified per decode step.",
        name="lookahead.maxCandidates", group=DECODING, effect=Effect.RESTART,
        flag=Flag("--max-candidates", metavar="G"),
    )  # fmt: skip
    speculate: bool | None = setting(
        None, auto(boolean()), "Compute what follows a suggestion while it is shown; `auto` does so only on a GPU.",
        name="speculate", group=DECODING, effect=Effect.RESTART, flag=Flag("--speculate", metavar="{auto,on,off}"),
    )  # fmt: skip
    autoregressive: bool = setting(
        False, boolean(), "Decode token by token, for comparison.",
        name="autoregressive", group=DECODING, audience=Audience.SHELL,
        flag=Flag("--autoregressive", means=True),
    )  # fmt: skip
    devices: int = setting(
        1, integer(1, 4096),
        "Decode on N devices (lookahead parallelism); each holds a full copy and computes part of every step.",
        name="devices", group=DECODING, audience=Audience.SHELL, flag=Flag("--devices", metavar="N"),
    )  # fmt: skip

    cross_file: bool = setting(
        True, boolean(),
        "Include excerpts of other open files in the prompt (ignored on a CPU, where prompts are short).",
        name="crossFile", group=WORKSPACE, effect=Effect.RESTART,
        flag=Flag("--no-cross-file", help="Do not include other files in prompts.", means=False),
    )  # fmt: skip
    pool_tokens: int | None = setting(
        None, unset(integer(1_000, 100_000_000), _BACKENDS_CHOICE),
        "Maximum number of tokens in a workspace's n-gram pool; the oldest are dropped first.",
        name="poolTokens", group=WORKSPACE, effect=Effect.RESTART, flag=Flag("--pool-tokens", metavar="TOKENS"),
    )  # fmt: skip
    persistent_pool: bool = setting(
        True, boolean(), "Keep n-gram pools on disk between starts.",
        name="persistentPool", group=WORKSPACE, audience=Audience.SHELL,
        flag=Flag("--no-persistent-pool", help="Keep n-gram pools in memory only.", means=False),
    )  # fmt: skip

    # Chosen, not measured, unless a comment says otherwise.
    invoked_deadline_ms: int = setting(3000, integer(1, 600_000), "Time for a request that the user asked for.")
    # measured: docs/decisions.md, "Suffix share of the prompt"
    suffix_share: float = setting(0.4, number(0.0, 0.8), "Share of the prompt for the text after the cursor.")
    context_share: float = setting(
        0.15, number(0.0, 0.8), "Share of the prompt for other files; other parts may use what is left."
    )
    kv_cache_bytes: int = setting(
        256 * 2**20, integer(0, 2**50), "Memory for cached prompts, besides the one that is always kept."
    )
    user_document_bytes: int = setting(
        64 * 2**20, integer(0, 2**50), "Memory for the texts of one user's open documents."
    )
    document_bytes: int = setting(192 * 2**20, integer(0, 2**50), "Memory for the texts of all open documents.")
    user_queue_bytes: int = setting(
        64 * 2**20, integer(0, 2**50), "Memory for one user's texts that wait to be indexed: twice a workspace's files."
    )
    queue_bytes: int = setting(128 * 2**20, integer(0, 2**50), "Memory for all texts that wait to be indexed.")
    sampling_temperature: float = setting(0.7, number(0.01, 100.0), "For all suggestions of a request but the first.")
    # measured: docs/decisions.md, "Parts of a running request"
    partial_every_s: float = setting(0.025, number(0.0, 10.0), "Interval of a running request's partial results.")
    prewarm: bool = setting(True, boolean(), "Prefill the prompt around the last edit while idle.")
    index_slice_s: float = setting(0.001, number(1e-6, 0.1), "Length of one slice of background indexing.")

    def __post_init__(self) -> None:
        check(self)
        shares = self.suffix_share + self.context_share
        if shares > 0.9:
            raise ConfigError("suffix_share + context_share", shares, "at most 0.9")

    @property
    def max_block_tokens(self) -> int:
        """Maximum number of tokens of a suggestion that may span lines."""
        return self.max_new_tokens or _MAX_BLOCK_TOKENS

    @property
    def max_line_tokens(self) -> int:
        """Maximum number of tokens of a suggestion that ends with its line."""
        return min(self.max_block_tokens, _MAX_LINE_TOKENS)

    @property
    def typing_deadline_ms(self) -> int:
        """Time for a request while the user types, from its arrival."""
        return self.deadline_ms or _DEADLINE_MS

    @property
    def published_sizes(self) -> dict[str, Any] | None:
        """Those of W, N and G that are set, for lookahead decoding as published; ``None``: drafts by their cost."""
        sizes = {
            "window_size": self.lookahead_window,
            "ngram_size": self.lookahead_ngram,
            "max_candidates": self.lookahead_max_candidates,
        }
        given = {name: size for name, size in sizes.items() if size is not None}
        return given if given and self.lookahead_window != 0 else None


@dataclass(frozen=True, slots=True)
class EditorConfig:
    """The settings of one editor window.

    Attributes:
        engine: the settings that the backend is started with.

    Raises:
        ConfigError: a value is outside its range.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)

    enable: bool = setting(True, boolean(), "Suggest code while you type.", name="enable", group=SUGGESTIONS)
    languages: Mapping[str, bool] = setting(
        {}, switches('an object of language ids and true or false, "*" for all others'),
        'Enable or disable suggestions per language; `*` is all others. Example: `{"*": true, "markdown": false}`.',
        name="languages", group=SUGGESTIONS,
    )  # fmt: skip
    multi_line: Literal["auto", "always", "never"] = setting(
        "auto",
        choice({
            "auto": "Where the syntax expects a block.",
            "always": "Wherever the model continues.",
            "never": "At most one line.",
        }),
        "Whether a suggestion may span lines.",
        name="multiLine", group=SUGGESTIONS, flag=Flag("--multi-line", ("complete",), "{auto,always,never}"),
    )  # fmt: skip
    delay_ms: int | None = setting(
        None, auto(integer(0, 2000)),
        "Delay before the model is asked, in milliseconds; `auto` delays only where the model is slow.",
        name="delayMs", group=SUGGESTIONS,
    )  # fmt: skip
    num_suggestions: int = setting(
        3, integer(1, 8), "Maximum number of alternatives to show when you ask for suggestions.",
        name="numSuggestions", group=SUGGESTIONS,
        flag=Flag("--suggestions", ("complete",), "N", help="Maximum number of alternatives."),
    )  # fmt: skip
    confidence: str | float = setting(
        "default", word_or(("off", "default", "strict"), number(0.0, 1.0)),
        "How sure the model must be of a suggestion to show it while you type: `default` and `strict` are measured for "
        "the model and the language, a number is the least probability of the first line, and `off` shows every "
        "suggestion. A suggestion that you ask for is always shown.",
        name="confidence", group=SUGGESTIONS,
    )  # fmt: skip
    completion_fallback: bool = setting(
        False, boolean(),
        "Also offer suggestions in the completion popup, for editors without inline completion (VS Code has it).",
        name="completionFallback", group=SUGGESTIONS,
    )  # fmt: skip

    index_workspace: bool = setting(
        True, boolean(), "Also index workspace files that are not open (faster suggestions, same content).",
        name="indexWorkspace", group=WORKSPACE,
    )  # fmt: skip
    index_dependencies: bool = setting(
        True, boolean(),
        "Also index libraries that open files import: Python's standard library, Go's and its module cache.",
        name="indexDependencies", group=WORKSPACE,
    )  # fmt: skip
    ignore: tuple[str, ...] = setting(
        (), texts("a list of globs as in .gitignore"),
        "Globs of files that must not be read, in addition to `.gitignore`, `.forelookignore` and the built-in secrets "
        "list. In VS Code a workspace's globs are added to yours.",
        name="ignore", group=WORKSPACE,
    )  # fmt: skip

    backend_start: bool = setting(
        True, boolean(), "Start the backend when none is running.", name="backend.start", group=BACKEND, machine=True
    )
    backend_url: str | None = setting(
        None, unset(_URL, "the backend of this machine"), "Address of a backend on another machine (`forelook serve`).",
        name="backend.url", group=BACKEND, machine=True, effect=Effect.OTHER_BACKEND,
    )  # fmt: skip
    backend_token_file: str | None = setting(
        None, unset(text("the path of a file that only you can read")), "The file with the token for `backend.url`.",
        name="backend.tokenFile", group=BACKEND, machine=True, effect=Effect.OTHER_BACKEND,
    )  # fmt: skip

    command_suffix: str = setting(
        "", pattern(r"[A-Za-z0-9_.-]{0,64}", "up to 64 of A-Z a-z 0-9 _ . -"),
        "Set by an editor whose command names are shared by all its windows; read once, at start.",
        name="commandSuffix", group=PLUGIN, audience=Audience.PLUGIN,
    )  # fmt: skip
    model_offer: bool = setting(
        True, boolean(),
        "Offer a larger model than the bundled one, once, where the machine can run it; disable for an editor with an "
        "offer of its own.",
        name="modelOffer", group=PLUGIN, audience=Audience.PLUGIN,
    )  # fmt: skip
    status_notifications: bool = setting(
        True, boolean(), "Send forelook/status; disable for an editor that warns about unknown notifications.",
        name="statusNotifications", group=PLUGIN, audience=Audience.PLUGIN,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check(self)

    def wants_language(self, language_id: str) -> bool:
        """Whether suggestions are wanted in this language, where they are wanted at all."""
        return self.languages.get(language_id, self.languages.get("*", True))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the backend listens and what it accepts. Fields without a name in the table are for tests.

    Raises:
        ConfigError: a value is outside its range, or an address other machines can reach has no TLS.
    """

    port: int | None = setting(
        None, unset(integer(0, 65_535), "a Unix socket"), "Listen on TCP; 0 chooses a free port.",
        name="listen.port", group=SERVER, audience=Audience.SHELL, flag=Flag("--port", metavar="PORT"),
    )  # fmt: skip
    host: str = setting(
        "127.0.0.1", text("an address or host name"), "The TCP address; non-loopback addresses require TLS.",
        name="listen.host", group=SERVER, audience=Audience.SHELL, flag=Flag("--host", metavar="HOST"),
    )  # fmt: skip
    tls_certificate: Path | None = setting(
        None, unset(path("the path of a PEM file")), "The TLS certificate.",
        name="listen.tlsCertificate", group=SERVER, audience=Audience.SHELL,
        flag=Flag("--tls-certificate", metavar="PEM"),
    )  # fmt: skip
    tls_key: Path | None = setting(
        None, unset(path("the path of a PEM file")), "The TLS certificate's key.",
        name="listen.tlsKey", group=SERVER, audience=Audience.SHELL, flag=Flag("--tls-key", metavar="PEM"),
    )  # fmt: skip
    token_file: Path | None = setting(
        None, unset(path("the path of a file that only you can read")),
        "Accepted tokens, one per line, mode 0600; by default a new token is generated at every start.",
        name="listen.tokenFile", group=SERVER, audience=Audience.SHELL, flag=Flag("--token-file", metavar="FILE"),
    )  # fmt: skip
    keys_file: Path | None = setting(
        None, unset(path("the path of a file that only you can read")),
        "A team's keys, made with `forelook keys issue`; valid on TCP and for HTTP, next to the tokens.",
        name="listen.keysFile", group=SERVER, audience=Audience.SHELL, flag=Flag("--keys", metavar="FILE"),
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = setting(
        (), texts("a list of origins"), "A web page's origin that may connect; may be repeated.",
        name="listen.allowedOrigins", group=SERVER, audience=Audience.SHELL,
        flag=Flag("--allow-origin", metavar="ORIGIN"),
    )  # fmt: skip
    allowed_hosts: tuple[str, ...] = setting(
        (), texts("a list of host names"), "An additional accepted Host name; may be repeated.",
        name="listen.allowedHosts", group=SERVER, audience=Audience.SHELL,
        flag=Flag("--allow-host", metavar="NAME"),
    )  # fmt: skip
    idle_timeout_s: float | None = setting(
        1800.0, unset(number(0.1, _LONGEST_S), "never"),
        "Exit after this many seconds without connections; 0 disables.",
        name="listen.idleTimeout", group=SERVER, audience=Audience.SHELL,
        flag=Flag("--idle-timeout", metavar="SECONDS", off="0"),
    )  # fmt: skip
    max_connections: int = setting(
        64, integer(1, 10_000), "Maximum number of connections at a time.",
        name="listen.maxConnections", group=SERVER, audience=Audience.SHELL,
        flag=Flag("--max-connections", metavar="N"),
    )  # fmt: skip
    http: str | None = setting(
        None, unset(_HTTP_ADDRESS, "none"),
        "Also answer HTTP requests at HOST:PORT; port 0 chooses a free one, and non-loopback addresses require TLS.",
        name="http.listen", group=HTTP, audience=Audience.SHELL, flag=Flag("--http", metavar="HOST:PORT"),
    )  # fmt: skip
    http_key_file: Path | None = setting(
        None, unset(path("the path of a file that only you can read")),
        "Accepted keys, one per line, mode 0600; by default one key is generated once and kept.",
        name="http.keyFile", group=HTTP, audience=Audience.SHELL, flag=Flag("--http-key-file", metavar="FILE"),
    )  # fmt: skip
    http_without_key: bool = setting(
        False, boolean(),
        "Accept HTTP requests without a key: this machine is mine alone. Loopback addresses only.",
        name="http.withoutKey", group=HTTP, audience=Audience.SHELL, flag=Flag("--http-without-key", means=True),
    )  # fmt: skip
    # Chosen, not measured.
    http_max_body_bytes: int = setting(4 * 2**20, integer(1_024, 2**30), "Longest body of an HTTP request.")
    http_max_waiting_bytes: int = setting(
        16 * 2**20, integer(1_024, 2**30), "Bodies of the HTTP requests of one key that wait for their answers."
    )
    http_body_timeout_s: float = setting(10.0, number(0.01, 600.0), "Time for the body of an HTTP request to arrive.")
    http_max_pending: int = setting(32, integer(1, 10_000), "Maximum number of pending HTTP requests of one key.")
    http_rate: float = setting(100.0, number(0.01, 1e6), "HTTP requests per second of one key, on average.")
    http_burst: int = setting(200, integer(1, 1_000_000), "HTTP requests of one key at once.")
    # Chosen, not measured: three quarters of all, and a pause without typing.
    max_user_connections: int = setting(
        48, integer(1, 10_000), "Maximum number of connections of each user of a shared backend."
    )
    idle_connection_s: float = setting(
        60.0, number(0.0, _LONGEST_S), "A connection with open documents is idle after this time without a message."
    )
    log_level: str = setting(
        "info", choice(("debug", "info", "warning", "error")), "The least severe messages in the log.",
        name="logLevel", group=SERVER, audience=Audience.SHELL,
        flag=Flag("--log-level", metavar="{debug,info,warning,error}"),
    )  # fmt: skip
    # Chosen, not measured.
    close_timeout_s: float = setting(10.0, number(0.0, 600.0), "Time for the engine to close when the backend exits.")
    max_message_bytes: int = setting(
        16 * 2**20, integer(1_024, 2**30), "Longest message accepted; one four times as long ends its connection."
    )
    max_document_bytes: int = setting(8 * 2**20, integer(1_024, 2**30), "Longest document.")
    max_documents: int = setting(1000, integer(1, 1_000_000), "Maximum number of open documents per connection.")
    max_pending_requests: int = setting(64, integer(1, 10_000), "Maximum number of pending requests per connection.")

    def __post_init__(self) -> None:
        check(self)
        host = "localhost" if self.port is None else self.host  # without a port no host is listened on
        check_tls(host, self.tls_certificate, self.tls_key, ("host", "tls_certificate", "tls_key"))
        if self.keys_file is not None and self.port is None and self.http is None:
            raise ConfigError("keys", str(self.keys_file), "an address for their users: --port, --http or both")
        if self.http is not None:
            http_host, http_port = self.http_address
            if http_port > 65_535:
                raise ConfigError("http", self.http, "a port from 0 to 65535")
            check_tls(http_host, self.tls_certificate, self.tls_key, ("http", "tls_certificate", "tls_key"))
            if self.http_without_key and http_host not in LOOPBACK_HOSTS:
                raise ConfigError("http_without_key", True, "false, as other machines can reach the address")

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port of ``http``, which is set."""
        host, _, port = (self.http or "").rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def http_has_tls(self) -> bool:
        """Whether HTTP requests are encrypted: where other machines can reach the address."""
        return self.http is not None and self.http_address[0] not in LOOPBACK_HOSTS


def check_tls(host: str, certificate: Path | None, key: Path | None, names: tuple[str, str, str]) -> None:
    """Check that a listener has TLS if other machines can reach it; ``names`` are the user's for the other arguments.

    Raises:
        ConfigError: only one of the two files is given, or neither for an address other machines can reach.
    """
    if (certificate is None) != (key is None):
        raise ConfigError(names[2], key, f"a key file, together with {names[1]}")
    if host not in LOOPBACK_HOSTS and certificate is None:
        raise ConfigError(names[0], host, f"a loopback address, unless {names[1]} and {names[2]} are given")


def table_of(*classes: type) -> tuple[Setting, ...]:
    """The rows of settings classes that have a name, group by group."""
    return tuple(row for group in GROUPS for row in rows_of(*classes) if row.name and row.group == group)


SETTINGS = table_of(EditorConfig, EngineConfig, ServerConfig)
"""The table of all settings."""
