# The story of test_story.py with curl. $GATEWAY and $SHOP: where they are. Prints what each step came to.
api() { # METHOD PATH [BODY]
    curl -sS -X "$1" "$GATEWAY/v1$2" -H "Authorization: Bearer ${TOKEN:-}" -H "Idempotency-Key: $1 $2 ${3:-}" \
        ${3:+-H "Content-Type: application/json" -d "$3"}
}
field() { python3 -c "import json, sys; print(eval('json.load(sys.stdin)' + sys.argv[1]))" "$1"; }
until_says() { # WORD COMMAND...: asks again until the answer has the word
    word=$1
    shift
    for _ in $(seq 150); do
        answer=$("$@")
        [[ $answer == *"$word"* ]] && return
        sleep 0.1
    done
    echo "no '$word' in: $answer" >&2
    return 1
}
mails() { api GET "/devnet/mails?to=$EMAIL"; }
order() { curl -sS "$ORDER"; }

EMAIL="curl-$RANDOM@example.org"
PASSWORD="a donkey counts blue umbrellas"
api POST /auth/register '{"email": "'$EMAIL'", "password": "'"$PASSWORD"'", "name": "Ann"}' | field "['email']"
until_says 'token=' mails
api POST /auth/verify '{"token": "'"$(grep -o 'token=[A-Za-z0-9_-]*' <<<"$answer" | head -1 | cut -d= -f2)"'"}'
TOKEN=$(api POST /auth/login '{"email": "'$EMAIL'", "password": "'"$PASSWORD"'"}' | field "['access_token']")
WALLET=$(api POST /wallets '{"label": "main"}' | field "['id']")

card='{"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}'
api POST '/purchases?wait=15' '{"wallet_id": "'$WALLET'", "asset": "USD", "amount": "100.00", "card": '"$card"'}' | field "['status']"

checkout=$(curl -sS -o /dev/null -w '%{redirect_url}' -X POST "$SHOP/orders?mug=1")
intent=${checkout##*/}
api POST "/payment-intents/$intent/confirm?wait=15" '{"from_wallet": "'$WALLET'"}' | field "['status']"
ORDER=$(api GET "/payment-intents/$intent" | field "['success_url']")
until_says 'proven by block' order && echo "shop: paid"
curl -sS -o /dev/null -X POST "$ORDER/refund"
until_says 'Refunded' order && echo "shop: refunded"
api GET "/wallets/$WALLET" | field "['balances']['USD']['available']"

payout='{"wallet_id": "'$WALLET'", "asset": "USD", "amount": "100.00", "iban": "DE89370400440532013000", "name": "Ann"}'
PAYOUT=$(api POST '/payouts?wait=15' "$payout" | field "['id']")
until_says '"paid"' api GET "/payouts/$PAYOUT" && echo "bank: paid"
api GET "/wallets/$WALLET" | field "['balances']['USD']['available']"
