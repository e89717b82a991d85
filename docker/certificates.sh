#!/bin/sh
# Certificates for a broker and the nodes of a net, and Grafana's password: docker/certificates.sh [NODE ...]
#
# Without names: those of compose.yaml. What is there and good for another 30 days stays as it is, so run it again whenever you
# like: it adds nodes, renews what ends soon, and signs the list of revoked certificates anew (it holds for a year).
#
#   SECRETS=FOLDER            where (default: docker/secrets)
#   BROKER=DNS:mqtt.example   further names or addresses of the broker (IP:192.0.2.1), separated by commas; remembered
#   REVOKE=NODE               no longer let a node in; it stays so until its name is taken out of nodes.revoked, and NODE.pem removed
set -eu
umask 077

case ${1:-} in -*)
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
  [ "$1" = --help ] || [ "$1" = -h ] || { echo "$0: '$1' is no name of a node" >&2; exit 2; }
  exit 0 ;;
esac
case ,${BROKER:-DNS:} in *,[!DI]* | *,?[!NP]*)
  echo "$0: BROKER=$BROKER: say DNS:NAME or IP:ADDRESS, several with commas between" >&2; exit 2 ;;
esac

folder=${SECRETS:-$(dirname "$0")/secrets}
[ $# -gt 0 ] || set -- top fog-0 fog-1 device-0 device-1 device-2 device-3 device-4 device-5 device-6 device-7 monitor
mkdir -p "$folder/nodes"
cd "$folder"
chmod 700 .

LOCAL=DNS:broker,DNS:localhost,IP:127.0.0.1

fail() { echo "$0: $2" >&2; exit "$1"; }

# openssl tells what it does even when asked not to: shown where it fails.
quietly() { said=$("$@" 2>&1) || fail 1 "$said"; }

# Compose mounts these files into containers as they are, where another user reads them. On this machine nobody else can: the
# folder is closed. The authority's key is for its owner alone, and mounted nowhere.
show() { chmod 444 "$@"; }

lasting() { [ -f "$1" ] && openssl x509 -in "$1" -noout -checkend 2592000 >/dev/null; }

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# sign FILE NAME EXTENSIONS: FILE.key and FILE.crt, whose common name is NAME
sign() {
  new_key "$1.key"
  openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
  printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n%s\n' "$3" > "$1.ext"
  quietly openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days 365 -sha256 \
    -extfile "$1.ext" -out "$1.crt"
  rm -f "$1.csr" "$1.ext"
}

authority() {
  printf '[ca]\ndefault_ca=a\n[a]\ndatabase=revoked.txt\ncertificate=ca.crt\nprivate_key=ca.key\ndefault_md=sha256\ndefault_crl_days=365\n' > ca.conf
  touch revoked.txt nodes.revoked
  if lasting ca.crt; then return; fi
  rm -f ca.crt server.crt nodes/*.pem
  new_key ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=edgemw authority" -out ca.crt \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
  show ca.crt
  echo "made an authority: keep $folder/ca.key safe"
}

broker() {
  known=$(cat server.names 2>/dev/null || true)
  names=${known:-$LOCAL}
  if [ -n "${BROKER:-}" ]; then names=$LOCAL,$BROKER; fi
  if lasting server.crt && [ "$known" = "$names" ]; then return; fi
  sign server.new broker "extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$names"
  show server.new.crt server.new.key
  rm -f server.crt
  mv -f server.new.key server.key
  mv -f server.new.crt server.crt
  printf '%s' "$names" > server.names
  echo "made a certificate of the broker: $names"
}

# The certificate and its key in one file, so that a node is given one secret.
node() {
  case $1 in *[!a-z0-9-]* | -* | '') fail 2 "'$1' is not the name of a node: small letters, digits and -" ;; esac
  if grep -qxF -e "$1" nodes.revoked; then
    echo "$1 is revoked: to let it in again take it out of $folder/nodes.revoked, and remove nodes/$1.pem"
    return
  fi
  if lasting "nodes/$1.pem"; then return; fi
  sign "nodes/$1.new" "$1" "extendedKeyUsage=clientAuth"
  cat "nodes/$1.new.crt" "nodes/$1.new.key" > "nodes/$1.new"
  show "nodes/$1.new"
  mv -f "nodes/$1.new" "nodes/$1.pem"
  rm -f "nodes/$1.new.crt" "nodes/$1.new.key"
  echo "made a certificate of $1"
}

authority
broker
if [ -n "${REVOKE:-}" ]; then
  [ -f "nodes/$REVOKE.pem" ] || fail 2 "there is no $folder/nodes/$REVOKE.pem"
  # The same certificate only once: openssl fails at the second time.
  serial=$(openssl x509 -in "nodes/$REVOKE.pem" -noout -serial)
  grep -qi "	${serial#serial=}	" revoked.txt || quietly openssl ca -config ca.conf -revoke "nodes/$REVOKE.pem"
  grep -qxF -e "$REVOKE" nodes.revoked || echo "$REVOKE" >> nodes.revoked
  echo "revoked $REVOKE; tell the broker: docker compose restart broker"
else
  for name in "$@"; do node "$name"; done
fi
quietly openssl ca -config ca.conf -gencrl -out crl.new
if [ -f crl.pem ]; then chmod 644 crl.pem; fi
cat crl.new > crl.pem # in place: a container has mounted this very file
show crl.pem
rm -f crl.new
if [ ! -f grafana-password ]; then
  openssl rand -hex 16 > grafana-password
  show grafana-password
fi
echo "in $folder: ca.crt, server.crt, crl.pem, nodes/NODE.pem, grafana-password"
