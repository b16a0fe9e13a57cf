"""The secrets list: names of files that usually contain credentials. They are never read, sent or completed.

The language server applies it to what it sends, and the backend again to what it receives.
"""

from __future__ import annotations

from functools import lru_cache

from forelook.errors import PrivacyError
from forelook.privacy.ignore_rules import IgnoreRules
from forelook.uris import path_within, split_uri, uri_path

_SECRET_STEMS = (
    "*credential*",
    "*secret*",
    "*password*",
    "*passwd*",
    "*service?account*",
    "*access?key*",
    "*api?key*",
    "*vault*",
)
_DATA_SUFFIXES = ("json", "yaml", "yml", "toml", "ini", "cfg", "conf", "csv", "txt", "xml", "properties", "plist")

SECRET_GLOBS: tuple[str, ...] = (
    # environment files and shell histories
    ".env*", "*.env", ".direnv/", ".flaskenv", ".dev.vars", ".*_history", ".histfile",
    # keys, certificates, keyrings
    "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.pkcs12", "*.jks", "*.keystore", "*.bks", "*.der", "*.crt", "*.cer",
    "*.csr", "*.ppk", "*.gpg", "*.pgp", "*.asc", "*.age", "*.agekey", "*.kdb", "*.kdbx", "*.keychain", "*.keychain-db",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "ssh_host_*_key*", ".ssh/", ".gnupg/", "known_hosts",
    "authorized_keys", "secring.*", "*.ovpn", "*.rdp", "wg[0-9].conf", "*.mobileprovision",
    # credentials of tools
    ".netrc", "_netrc", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".pgpass", "pgpass.conf", ".my.cnf",
    ".htpasswd", ".htdigest", ".git-credentials", ".gitcookies", ".boto", ".s3cfg", ".dockercfg", ".docker/", ".aws/",
    ".azure/", ".gcloud/", "**/.config/gcloud/", ".kube/", "*kubeconfig*", ".terraformrc", "terraform.rc",
    ".vault-token",
    ".vault_pass*", ".databrickscfg", "**/.gem/credentials", "**/.m2/settings.xml", "auth.json",
    ".snowsql/", "nuget.config", ".rhosts", ".remote-sync.json", ".ftpconfig", "sftp.json", "sftp-config.json",
    ".esmtprc", ".msmtprc", ".git/", ".hg/", ".svn/",
    # data files with these stems, and folders meant for secrets
    *(f"{stem}.{suffix}" for stem in _SECRET_STEMS for suffix in _DATA_SUFFIXES),
    "*.credentials", "*.secret", "*.secrets", "*.token", "*.passwd", "*.pwd", "secrets/", ".secrets/", ".token",
    "local.settings.json", "appsettings.*.json", "google-services.json", "GoogleService-Info.plist",
    # infrastructure state
    "*.tfstate", "*.tfstate.*", "*.tfvars", "*.tfvars.json", "*.tfplan", ".terraform/", "Pulumi.*.yaml", "Pulumi.*.yml",
    # dumps and stores
    "*.sqlite", "*.sqlite3", "*.db", "*.dump", "*.sql.gz", "*.bak", "*.pcap", "*.pcapng", "*.har", "*.wallet",
    "wallet.dat",
)  # fmt: skip
"""Names that no ignore file can include, in gitignore syntax, case-insensitive."""

SECRET_FILE_NAMES: frozenset[str] = frozenset(
    {"credentials", "secret", "secrets", "token", "tokens", "password", "passwords", "passwd", "shadow", "kubeconfig"}
)
"""Names of files, not folders, that are excluded too; lower case."""

_SECRETS = IgnoreRules("\n".join(SECRET_GLOBS).encode(), ignore_case=True, strict=True)


def is_secret_path(path: str) -> bool:
    """Whether the names in a path are on the secrets list; the separator is ``/`` or ``\\``."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return False
    if parts[-1].lower() in SECRET_FILE_NAMES:
        return True
    names = [_bytes_of(part) for part in parts]
    return _is_secret_folder(tuple(names[:-1])) or bool(_SECRETS.verdict(b"/".join(names), is_directory=False))


def _bytes_of(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that no file system made
        return name.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=4096)
def _is_secret_folder(names: tuple[bytes, ...]) -> bool:
    """Whether a folder or one above it is on the secrets list; cached, because many files share it."""
    if not names:
        return False
    return _is_secret_folder(names[:-1]) or bool(_SECRETS.verdict(b"/".join(names), is_directory=True))


def is_secret(workspace: str, name: str) -> bool:
    """Whether a document's name is on the secrets list.

    Args:
        workspace: the folder's URI; its own name does not count.
        name: a URI, or a path relative to the workspace.
    """
    if not split_uri(name).scheme:
        return is_secret_path(name)
    path = path_within(workspace, name)
    # Outside the workspace only the file name counts: the folders above it are not part of the project.
    return is_secret_path(uri_path(name).rpartition("/")[2] if path is None else path)


def check_document(workspace: str, uri: str) -> None:
    """Refuse a document whose name is on the secrets list.

    Raises:
        PrivacyError: its name is on the list.
    """
    if is_secret(workspace, uri):
        raise PrivacyError("the document's name is on the secrets list; completion is disabled for it")
