#!/bin/sh
# Make the secrets that compose.yaml mounts, once; what is there already stays. Needs openssl. Prints no secret.
#   docker/secrets.sh [FOLDER]
# Files are readable by all because each container runs as another account; the folder is not, so nobody gets to them on the host.
set -eu
folder=${1:-"$(dirname "$0")/secrets"}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() { openssl rand -hex 24; }
keep() { # NAME: writes what it is given, unless that is there
  if [ -e "$folder/$1" ]; then cat > /dev/null; else cat > "$folder/.$1.part" && chmod 444 "$folder/.$1.part" && mv "$folder/.$1.part" "$folder/$1"; fi
}

random | keep postgres_password
for role in dagster mlflow; do printf '*:*:%s:%s:%s\n' "$role" "$role" "$(random)" | keep "${role}_pgpass"; done
printf 'geoloc:%s\n' "$(random)" | keep login
cut -d: -f2 "$folder/login" | openssl passwd -apr1 -stdin | sed 's/^/geoloc:/' | keep htpasswd
random | keep s3_key
printf '[default]\naws_access_key_id = geoloc\naws_secret_access_key = %s\n' "$(cat "$folder/s3_key")" | keep s3_credentials
printf '{"identities":[{"name":"geoloc","credentials":[{"accessKey":"geoloc","secretKey":"%s"}],"actions":["Admin","Read","Write","List"]}]}\n' \
  "$(cat "$folder/s3_key")" | keep s3_config
random | keep ray_token
echo "secrets are in $folder; user and password of all pages: $folder/login"
