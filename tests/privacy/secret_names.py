"""Names of files, collected by hand from what secret scanners report and collections of ignore files list.

Sources, by kind: the file rules of gitleaks, trufflehog, gitrob, shhgit, git-secrets and detect-secrets; GitHub's
gitignore collection; the documentation of the tools that write the files. Not derived from the list under test.
"""

SECRET_NAMES = """
 .env .env.local .env.production .envrc app.env deploy/prod.env .flaskenv .dev.vars .env.vault .env.keys id_rsa
id_dsa id_ecdsa id_ed25519 id_rsa.pub keys/deploy_rsa server.pem tls/server.KEY cert.crt ca.cer site.der site.csr
keys/AuthKey_AB12CD34EF.p8 cert.p12 cert.pfx cert.pkcs12 app.jks release.keystore debug.keystore putty.ppk
backup.gpg mail.pgp signature.asc secrets.age db.kdb db.kdbx login.keychain login.keychain-db service.keytab
user.ccache key.snk .ssh/config a/.ssh/known_hosts .gnupg/secring.gpg secring.gpg authorized_keys office.ovpn
admin.rdp wg0.conf embedded.mobileprovision vault.psafe3 passwords.enpass ssh_host_rsa_key ssh_host_ed25519_key.pub
oct.jwk serviceAccountKey.json service-account.json service_account.json serviceaccount.json
serviceAccount-prod.json gcp-service-account.json my-app-firebase-adminsdk-x1y2z-0a1b2c3d4e.json
firebase-adminsdk.json firebase_adminsdk_key.json key.json gcp-key.json gcloud_key.json keyfile.json
client_secret.json clientSecret.json client_secret_1234.apps.googleusercontent.com.json client-secrets.json
google-services.json GoogleService-Info.plist application_default_credentials.json .config/gcloud/access_tokens.db
.boto token.json token.pickle apikey.txt api_key.txt api-key.txt api.key.txt ApiKey.json apiKeys.yaml api_keys.yml
apikeys.json myApiKey.txt openai_api_key.txt apikey api_key .apikey .api_key api-keys.ini private_key privatekey
private-key privateKey private_key.txt privateKey.json private-key.xml my_private_key access_key access-keys.csv
accessKeys.csv ada_accessKeys.csv rootkey.csv credentials.csv new_user_credentials.csv .aws/credentials .aws/config
secret_key secretkey secret-key.txt secret_key.json secretKey.yml auth_token authtoken authToken.txt access_token
access-token.json accesstoken.txt refresh_token.txt refreshToken.json bearer_token.txt bot_token.txt
github_token.txt github-token slack-token.txt npm_token.txt oauth_token.json deploy.token vault_password
vault-password vaultpassword .vault_password .vault_pass .vault-pass .vault_pass.txt vault_pass vault.yml
ansible-vault.yaml .vault-token ansible_vault_password password passwords password.txt passwords.csv passwords.xml
passwd.txt db_password.txt dbPassword.conf admin-password.txt passphrase passphrase.txt user.pwd secrets
secrets.json secrets.yml app-secrets.yaml k8s-secret.yaml secret.toml secrets.properties secrets/x.py .secrets/x
.secrets.toml credentials credentials.json credentials.yml.enc my-credentials.ini aws_credentials .rclone.conf
rclone.conf .config/rclone/rclone.conf .config/gh/hosts.yml .config/hub .config/glab-cli/config.yml
gradle.properties .gradle/gradle.properties keystore.properties key.properties local.properties signing.properties
.kaggle/kaggle.json kaggle.json .dockerconfigjson .dockercfg .docker/config.json registry.dockerconfigjson
wp-config.php wp-config-sample.php wp-config.php.bak LocalSettings.php settings.local.php .sentryclirc ngrok.yml
.ngrok2/ngrok.yml .config/doctl/config.yaml .netrc _netrc .netrc.gpg .authinfo.gpg .npmrc .yarnrc.yml .pypirc
pip.conf nuget.config NuGet.Config .m2/settings.xml .m2/settings-security.xml .cargo/credentials.toml
.cargo/credentials .gem/credentials .bundle/config auth.json .composer/auth.json .git-credentials .gitcookies
.git/config .pgpass pgpass.conf .my.cnf .mylogin.cnf .mongorc.js .psql_history .mysql_history .bash_history
.zsh_history .python_history .node_repl_history .rediscli_history .htpasswd .htdigest .s3cfg
.azure/accessTokens.json .oci/config .kube/config kubeconfig kubeconfig.yaml my-kubeconfig.yaml kube-config.yml
admin.conf .terraformrc terraform.rc terraform.tfstate terraform.tfstate.backup x.tfstate.lock.info prod.tfvars
secrets.auto.tfvars.json plan.tfplan .terraform/x Pulumi.prod.yaml .databrickscfg .snowsql/config clouds.yaml
admin-openrc.sh .ftpconfig sftp-config.json sftp.json .remote-sync.json filezilla.xml recentservers.xml
sitemanager.xml ws_ftp.ini winscp.ini .esmtprc .msmtprc .muttrc .rhosts .lftprc .fetchmailrc tomcat-users.xml
local.settings.json appsettings.Production.json local_settings.py database.yml prod.publishsettings site.pubxml.user
unattend.xml sysprep.inf logins.json cookies.txt jenkins.plugins.x.xml team-provider-info.json
connectionStrings.config connection-string.txt recovery-codes.txt backup_codes.txt mnemonic.txt seed-phrase.txt
wallet.dat eth.wallet db.sqlite3 app.sqlite data.db dump.sql prod.sql.gz users.dump capture.pcap login.har
heap.hprof crash.dmp shadow etc/shadow jwt_key.json jwt-keys.json encryption-key.txt signing_key signingkey.txt
master_key.txt ssh_key.txt deploy-key .huggingface/token .jupyter/jupyter_server_config.json
"""

ORDINARY_NAMES = """
 README.md LICENSE Makefile Dockerfile docker-compose.yml package.json tsconfig.json pyproject.toml setup.cfg
Cargo.toml go.mod pom.xml build.gradle settings.gradle build.gradle.kts gradle-wrapper.properties CMakeLists.txt
.gitignore .gitattributes .editorconfig .eslintrc.json .prettierrc .github/workflows/ci.yml .vscode/settings.json
tox.ini environment.py environment.yml environments.json env.py env.ts vite-env.d.ts denv src/env/index.ts
config.env.ts keys.py keyboard.json keymap.json keywords.txt keys.go key.py key.ts hotkeys.yaml monkey.py
donkey.json turkey.csv primary_keys.sql foreign-keys.md keypress.js keyframes.css public_key.go publickey.pyi
rapid-keyboard.json secrets.py secret.go secrets.ts secret_manager.py secretary.json secretariat.yaml
SecretStore.java docs/secrets.md tests/test_secrets.py credentials.py credential_provider.rs CredentialsForm.tsx
credentials.md password_reset.html password.py PasswordInput.vue passwords.ts password-strength.js passport.js
passenger.csv pass.go passes.json bypass.yaml compass.json passthrough.conf rotate-secrets bin/reset-password
bin/create-service-account token.py tokens.css tokens/parse.py tokenizer.json tokenizer_config.json
special_tokens_map.json design-tokens.json android-tokens.json tokens.ts tokenize.rs Token.java robot_tokens.json
vault.ts VaultClient.go vaulting.md service.py services.yaml service_accounts.go account.json accounts.yaml
service.json discount.toml api.json apis.yaml api.md docs/api-keys.md capitals.json rapid.toml therapist.csv
access.log access.py accessibility.json accessors.yaml private.py private_method.rb privately.txt privacy.json
auth.py auth.ts authors.txt authorize.json author-index.yaml oauth.py OAuthClient.kt authentication.md AUTHORS
certificate.py certs.go cert_utils.ts pem.py ssl.conf tls.go ssh.py known_hosts.py config.json config.yaml config.py
settings.py settings.json settings.xml application.yml application.properties appsettings.json web.config app.config
hosts.yml hosts.txt hub.py kaggle.py docker.py dockerconfig.go kubeconfig.go pkg/kubeconfig/loader.go kube.py
database.py db.py sqlite.c schema.sql migrations/001_init.sql dump.py wallet.tsx backup.py backup.sh codes.json
recovery.md recovery.py history.py history.json shadow.css shadows.json main.tf variables.tf terraform.md vagrant.py
Vagrantfile Jenkinsfile Procfile ngrok.py rclone.go sentry.ts wp-content.php index.php functions.php firebase.json
firebase.ts google.py s3.py aws-exports.js gcp.tf azure-pipelines.yml netrc.py npm.ts pypi.md robots.txt
requirements.txt constraints.txt manifest.json locale/en.json i18n/de.json fixtures/users.json data.csv report.txt
notes.txt root.go rootkey.py roots.json signing.py encryption.rs master.tsx deploy.py deploy.yaml deployment.yaml
connection.py connections.go connection_pool.toml seed.sql seeds.rb phrase.json
"""
