"""The secrets list: names of files that usually contain credentials. They are never read, sent or completed.

The language server applies it to what it sends, and the backend again to what it receives.
"""

from __future__ import annotations

import re
from functools import lru_cache

from forelook.errors import PrivacyError
from forelook.privacy.ignore_rules import IgnoreRules
from forelook.uris import named_paths, split_uri, uri_path

_DATA_SUFFIXES = "json|json5|yaml|yml|toml|ini|cfg|conf|config|csv|tsv|txt|xml|properties|plist|enc|b64|bak|old|orig"
_SEPARATOR = "[-_. ]{0,2}"


def _phrase(*words: str) -> str:
    """The words in a row, with or without a separator between them."""
    return _SEPARATOR.join(words)


# Anywhere in a name; the second group only where a word begins: "android-tokens.json" contains "id-tokens".
_ANYWHERE = "|".join(
    (
        "credential", "secret(?!ar)", "passw(?:or)?d", "passphrase", "vault", _phrase("service", "account"),
        _phrase("access", "key"), _phrase("api", "key"), _phrase("private", "key"), _phrase("firebase", "adminsdk"),
        _phrase("(?:auth|access|refresh|bearer)", "token"), _phrase("kube", "config"),
    )
)  # fmt: skip
_AT_WORD = "|".join(
    (
        _phrase("(?:root|ssh|signing|encryption|master|deploy|jwt|aes|hmac|rsa|gpg|age)", "keys?"),
        _phrase("(?:api|bot|deploy|oauth|id|github|gitlab|slack|npm)", "tokens?"),
        _phrase("(?:recovery|backup)", "(?:codes?|keys?)"), _phrase("connection", "strings?"),
        _phrase("seed", "phrase"), "mnemonic",
    )
)  # fmt: skip
_OWNERS = (
    "my|prod|production|dev|staging|test|admin|root|user|db|database|app|server|client|vault|ansible|become|sudo|aws|"
    "gcp|azure|github|gitlab|docker|smtp|mysql|postgres|redis|jenkins|mongo|ldap|google|deploy"
)
_BARE = "|".join(
    (
        "credentials?", "secrets?", "passw(?:or)?ds?", "passphrases?", "passwd", "tokens?", "shadow",
        "kube[-_.]?config",
        _phrase("vault", "pass"), _phrase("service", "accounts?", "(?:keys?)?"),
        _phrase("(?:access|api|private|secret|root|ssh|signing|encryption|master|deploy|jwt)", "keys?"),
        _phrase("(?:auth|access|refresh|bearer|api|bot|deploy|oauth)", "tokens?"),
    )
)  # fmt: skip

_SECRET_DATA_NAME = re.compile(rf"(?s:.*)(?:{_ANYWHERE}|(?<![a-z0-9])(?:{_AT_WORD}))(?s:.*)\.(?:{_DATA_SUFFIXES})")
"""Data files: "serviceAccountKey.json", "prod.api-key.txt". Code about secrets, "secrets.py", is wanted."""

_SECRET_BARE_NAME = re.compile(rf"[._]?(?:(?:{_OWNERS})[-_. ]?){{0,2}}(?:{_BARE})(?:[-_.]?\d{{1,4}})?")
"""Files without a suffix: "private_key", ".vault_password". Scripts such as "reset-password" are wanted."""

_MAX_NAME = 1000  # characters of a name that are looked at; file systems allow 255 bytes
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

SECRET_GLOBS: tuple[str, ...] = (
    # environment files and shell histories
    ".env*", "*.env", ".direnv/", ".flaskenv", ".dev.vars*", ".*_history", ".histfile", ".*history", "env.local",
    # keys, certificates, keyrings
    "*.pem", "*.key", "*.p7b", "*.p7c", "*.p8", "*.p12", "*.pfx", "*.pkcs8", "*.pkcs12", "*.jks", "*.jceks",
    "*.keystore", "*.truststore", "*.bks", "*.der", "*.crt", "*.cer", "*.csr", "*.ppk", "*.gpg", "*.pgp", "*.asc",
    "*.age", "*.agekey", "*.kdb", "*.kdbx", "*.keychain", "*.keychain-db", "*.keytab", "*.kirbi", "*.ccache",
    "*.snk", "*.priv", "*.private", "*.psafe3", "*.agilekeychain/", "*.opvault/", "*.1pif", "*.enpass", "*.keyring",
    "*.jwk", "*.jwks", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "ssh_host_*_key*", "*_rsa", "*_dsa",
    "*_ecdsa", "*_ed25519", ".ssh/", ".gnupg/", "known_hosts", "authorized_keys*", "secring.*", "pubring.*",
    "trustdb.gpg", "*.ovpn", "*.rdp", "*.rdg", "wg[0-9]*.conf", "*.mobileprovision", "*.provisionprofile",
    "key.json", "*[-_]key.json", "keyfile.json", "rootkey.csv", "*.pkey", "sops-age-keys*",
    # credentials of tools
    ".netrc*", "_netrc", ".authinfo*", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmrc", ".pypirc", "pip.conf",
    ".condarc", ".pgpass", "pgpass.conf", ".my.cnf", ".mylogin.cnf", ".mongorc.js", ".mongoshrc.js", ".dbshell",
    ".psqlrc", ".htpasswd*", ".htdigest", ".git-credentials*", ".gitcookies", ".boto", ".s3cfg", ".s3cmd.ini",
    ".dockercfg", ".dockerconfigjson", "*.dockerconfigjson", ".docker/", ".aws/", ".azure/", ".gcloud/", ".oci/",
    ".bluemix/", ".aliyun/", ".tccli/", ".linode-cli", ".hcloud/", "**/.config/gcloud/", "**/.config/gh/",
    "**/.config/hub", "**/.config/glab-cli/", "**/.config/doctl/", "**/.config/rclone/", "**/.config/configstore/",
    "**/.config/heroku/", "**/.config/openstack/", "**/.config/op/", "**/.config/sops/",
    "**/.config/helm/registry.json", "**/.config/flyctl/", "doctl.yaml", ".kube/", "admin.conf", ".terraformrc",
    "terraform.rc", "credentials.tfrc.json", ".terraform.d/", ".vault-token*", ".vault_pass*", ".vault-pass*",
    "vault_pass*", "vault-pass*", ".databrickscfg", ".snowsql/", ".snowflake/", ".kaggle/", "kaggle.json",
    ".sentryclirc", ".rclone.conf", "rclone.conf", "**/.gem/credentials", "**/.bundle/config",
    "**/.cargo/credentials*", "**/.m2/settings*.xml", "settings-security.xml", "gradle.properties",
    "local.properties", "keystore.properties", "key.properties", "signing.properties", "**/.sbt/.credentials",
    "**/.ivy2/.credentials", "**/.nuget/nuget.config", "nuget.config", "auth.json", "oauth.json", "oauth2.json",
    "token.json", "token.pickle", "token.txt", "token.yaml", "token.yml", ".composer/", "clouds.yaml", "clouds.yml",
    "secure.yaml", "*-openrc.sh", "openrc.sh", ".rhosts", ".remote-sync.json", ".ftpconfig", ".ftp-config",
    "sftp.json", "sftp-config.json", "filezilla.xml", "recentservers.xml", "sitemanager.xml", "winscp.ini",
    "ws_ftp.ini", "proftpdpasswd", ".esmtprc", ".msmtprc", ".muttrc", ".offlineimaprc", ".mbsyncrc", ".fetchmailrc",
    ".getmailrc", ".irssi/", ".weechat/", ".ngrok2/", "ngrok.yml", "ngrok.yaml", ".cloudflared/", ".wrangler/",
    ".fly/", ".netlify/", ".vercel/", ".railway/", ".heroku/", ".travis.token", ".codecov.token", ".coveralls.yml",
    ".circleci.token", ".snyk.token", ".tugboat", ".wakatime.cfg", ".trc", ".twurlrc", ".hubrc", ".ghrc", ".lftprc",
    ".wgetrc", ".curlrc", "_curlrc", "jupyter_notebook_config.json", "jupyter_server_config.json", ".jupyter/",
    ".ipython/", ".huggingface/", "**/.cache/huggingface/token", ".modal.toml", ".replicate", ".openai",
    ".anthropic", ".aider.conf.yml", ".git/", ".hg/", ".svn/", ".bzr/", ".mozilla/", "logins.json", "key[34].db",
    "cookies.txt", "login data",
    # settings of frameworks that carry passwords
    "wp-config*.php", "localsettings.php", "settings.local.php", "local_settings.py", "local.settings.json",
    "appsettings.*.json", "connectionstrings*.config", "database.yml", "credentials.yml.enc", "*.yml.enc",
    "secret_token.rb", "databags/", "data_bags/", "google-services.json", "GoogleService-Info.plist",
    "*firebase*adminsdk*", "client_secret*.json", "client_id.json", "jenkins.plugins.*.xml", "hudson.util.secret",
    "publishprofiles/", "*.publishsettings", "*.pubxml.user", "robomongo.json", "ultravnc.ini", "tomcat-users.xml",
    "standalone-users.properties", "mgmt-users.properties", "unattend.xml", "sysprep.xml", "sysprep.inf",
    "autounattend.xml", "*.credentials", "*.credential", "*.secret", "*.secrets", "*.token", "*.tokens", "*.passwd",
    "*.pwd", "*.pass", "*.password", "*.passphrase", "*.authtoken", "*.apikey", "secrets/", ".secrets/", ".secret/",
    ".secrets*", ".token", ".credentials/", ".credentials*", ".private/", ".password-store/", ".pass/", ".purple/",
    # infrastructure state
    "*.tfstate", "*.tfstate.*", "*.tfvars", "*.tfvars.json", "*.tfplan", ".terraform/", "Pulumi.*.yaml",
    "Pulumi.*.yml", ".pulumi/", ".serverless/", ".vagrant/", ".terragrunt-cache/", "team-provider-info.json",
    "*.vmx",
    # dumps and stores
    "*.sqlite", "*.sqlite3", "*.db", "*.mdb", "*.accdb", "*.dump", "*.sql.gz", "*.sqldump", "dump.sql",
    "backup.sql", "*.bak", "*.pcap", "*.pcapng", "*.har", "*.wallet", "wallet.dat", "wallet.json",
    "**/keystore/utc--*", "*.dmp", "*.mdmp", "*.hprof", "*.heapdump", "core.[0-9]*", "**/etc/shadow",
    "**/etc/passwd", "shadow-",
)  # fmt: skip
"""Names that no ignore file can include, in gitignore syntax, case-insensitive."""

_SECRETS = IgnoreRules("\n".join(SECRET_GLOBS).encode(), ignore_case=True, strict=True)


def is_secret_path(path: str) -> bool:
    """Whether the names in a path are on the secrets list; the separator is ``/`` or ``\\``."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return False
    # Windows opens "id_rsa. " and "id_rsa::$DATA" as "id_rsa".
    parts[-1] = parts[-1].partition("::$")[0].rstrip(" .") or parts[-1]
    name = _CAMEL.sub("-", parts[-1][:_MAX_NAME]).lower()
    if _SECRET_DATA_NAME.fullmatch(name) or _SECRET_BARE_NAME.fullmatch(name):
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
    """Whether a document's name is on the secrets list, however it is spelled.

    Args:
        workspace: the folder's URI; its own name does not count.
        name: a URI of any scheme, or a path relative to the workspace.
    """
    if not split_uri(name).scheme:
        return is_secret_path(name.partition("#")[0]) or is_secret_path(name)
    return any(_is_secret_uri_path(workspace, name, path) for path in named_paths(name))


def _is_secret_uri_path(workspace: str, uri: str, path: str) -> bool:
    folder = uri_path(workspace).rstrip("/") + "/"
    if path.startswith(folder) and path != folder:
        return is_secret_path(path.removeprefix(folder))
    if split_uri(uri).scheme == "untitled":
        return is_secret_path(path)  # a name that was typed: all of it counts
    # Outside the workspace only the file name counts: the folders above it are not part of the project.
    return is_secret_path(path.rstrip("/").rpartition("/")[2])


def check_document(workspace: str, uri: str) -> None:
    """Refuse a document whose name is on the secrets list.

    Raises:
        PrivacyError: its name is on the list.
    """
    if is_secret(workspace, uri):
        raise PrivacyError("the document's name is on the secrets list; completion is disabled for it")
