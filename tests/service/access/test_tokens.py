"""Tokens: keys, signatures, claims and the rooms of a user."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from twisted_beastws.service.access.tokens import MAX_TOKEN, InvalidToken, TokenVerifier

SECRET = "0123456789abcdef0123456789abcdef"
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


@lru_cache
def private_key(algorithm: str, number: int = 0) -> Any:
    if algorithm == "HS256":
        return f"{SECRET[:-1]}{number}"
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def jwk(algorithm: str, number: int = 0, **more: Any) -> dict[str, Any]:
    key = private_key(algorithm, number)
    public = key if algorithm == "HS256" else key.public_key()
    return {**jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True), "kid": f"{algorithm}{number}", **more}


def token(algorithm: str = "HS256", number: int = 0, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    claims = {"sub": "ann", "exp": time.time() + 60, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, private_key(algorithm, number), algorithm, headers)


def verifier(directory: Path, algorithm: str = "HS256", more: str = "") -> TokenVerifier:
    path = directory / "key"
    if algorithm == "HS256":
        path.write_text(private_key("HS256", 0) + "\n")
        return TokenVerifier(f"secret={path}{more}")
    public = private_key(algorithm, 0).public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return TokenVerifier(f"key={path}{more}")


def reason(verifier: TokenVerifier, given: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        verifier.verify(given)
    return str(caught.value)


class TestSignature:
    """RFC 7518 §3.1 and RFC 8725 §3.1: the configured key decides about the algorithm."""

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_a_signature_of_each_algorithm_is_accepted(self, tmp_path: Path, algorithm: str) -> None:
        user = verifier(tmp_path, algorithm).verify(token(algorithm))
        assert user == "ann" and isinstance(user, str) and user.claims["sub"] == "ann"
        assert reason(verifier(tmp_path, algorithm), token(algorithm)[:-4] + "AAAA") == "the signature is wrong"

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_a_signature_with_the_public_key_as_a_secret_is_refused(self, tmp_path: Path, algorithm: str) -> None:
        # RFC 8725 §2.1: the token names HS256, and the attacker knows the public key.
        checks = verifier(tmp_path, algorithm)
        import hmac

        head = b".".join(_b64(json.dumps(part)) for part in ({"alg": "HS256"}, {"sub": "eve", "exp": time.time() + 60}))
        forged = head + b"." + _b64(hmac.digest((tmp_path / "key").read_bytes(), head, "sha256"))
        assert reason(checks, forged.decode()) == "the token has another algorithm than its key"

    @pytest.mark.parametrize("name", ["none", "None", "HS384", "RS256"])
    def test_the_algorithm_that_the_token_names_decides_nothing(self, tmp_path: Path, name: str) -> None:
        head = b".".join(_b64(json.dumps(part)) for part in ({"alg": name}, {"sub": "eve", "exp": time.time() + 60}))
        assert reason(verifier(tmp_path), f"{head.decode()}.") == "the token has another algorithm than its key"

    @pytest.mark.parametrize(
        "given", ["", ".", "a.b.c", "\u00e9", "x" * MAX_TOKEN, "x" * (MAX_TOKEN + 1), '{"alg":"HS256"}']
    )
    def test_a_text_that_is_no_token_is_refused(self, tmp_path: Path, given: str) -> None:
        long = f"the token has more than {MAX_TOKEN} characters"
        assert reason(verifier(tmp_path), given) == (long if len(given) > MAX_TOKEN else "the token is malformed")


class TestClaims:
    """RFC 7519 §4.1: the registered claims."""

    @pytest.mark.parametrize(
        ("claims", "error"),
        [
            ({"exp": 0}, "the token has expired"),
            ({"exp": None}, 'token is missing the "exp" claim'),
            ({"exp": "soon"}, "the token is malformed"),
            ({"exp": float("inf")}, "the token is malformed"),
            ({"nbf": 1 << 40}, "the token is not valid yet"),
            ({"aud": "other"}, "the token is for another audience"),
            ({"sub": None}, 'token is missing the "sub" claim'),
            ({"sub": ""}, "the claim sub must be a name of 1 to 128 printable characters"),
            ({"sub": "a\n"}, "the claim sub must be a name of 1 to 128 printable characters"),
            ({"sub": "a" * 129}, "the claim sub must be a name of 1 to 128 printable characters"),
            ({"sub": 7}, "the token is malformed"),
            ({"rooms": "a"}, "the claim rooms must be a list of rooms"),
            ({"read": [1]}, "the claim read must be a list of rooms"),
        ],
    )
    def test_each_wrong_claim_is_refused_with_its_reason(
        self, tmp_path: Path, claims: dict[str, Any], error: str
    ) -> None:
        given = {name: value for name, value in claims.items() if value is not None}
        whole = {"sub": "ann", "exp": time.time() + 60, **given}
        for name in [name for name, value in claims.items() if value is None]:
            del whole[name]
        assert reason(verifier(tmp_path), jwt.encode(whole, private_key("HS256", 0), "HS256")) == error

    def test_the_leeway_applies_to_both_times(self, tmp_path: Path) -> None:
        now = time.time()
        checks = verifier(tmp_path, more=":leeway=30")
        assert checks.verify(token(exp=now - 20)).expires == pytest.approx(now + 10)
        assert checks.verify(token(nbf=now + 20)) == "ann"
        assert reason(checks, token(exp=now - 40)) == "the token has expired"
        assert reason(checks, token(nbf=now + 40)) == "the token is not valid yet"
        assert reason(verifier(tmp_path, more=":leeway=0"), token(exp=now - 2)) == "the token has expired"

    def test_the_audience_and_the_issuer_must_match(self, tmp_path: Path) -> None:
        checks = verifier(tmp_path, more=r":audience=chat:issuer=https\://login")
        assert checks.verify(token(aud=["x", "chat"], iss="https://login")) == "ann"
        assert reason(checks, token(aud="chat", iss="other")) == "the token is of another issuer"
        assert reason(checks, token(iss="https://login")) == 'token is missing the "aud" claim'

    def test_another_claim_can_hold_the_name(self, tmp_path: Path) -> None:
        assert verifier(tmp_path, more=":name=nick").verify(token(nick="Annie")) == "Annie"
        assert reason(verifier(tmp_path, more=":name=nick"), token()) == 'token is missing the "nick" claim'


class TestRooms:
    """The claims that name rooms."""

    @pytest.mark.parametrize(
        ("claims", "read", "write"),
        [
            ({}, {"a", "", "team-1"}, {"a", "", "team-1"}),
            ({"rooms": []}, set(), set()),
            ({"rooms": ["a"]}, {"a"}, {"a"}),
            ({"read": ["*"]}, {"a", "", "team-1"}, set()),
            ({"write": ["a"]}, set(), {"a"}),
            ({"rooms": [""], "read": ["team-*"]}, {"", "team-1"}, {""}),
            ({"rooms": ["A"]}, set(), set()),
        ],
    )
    def test_the_rooms_are_named_by_the_claims(
        self, tmp_path: Path, claims: Any, read: set[str], write: set[str]
    ) -> None:
        rights = verifier(tmp_path).verify(token(**claims)).rights
        rooms = ("a", "", "team-1")
        assert {room for room in rooms if rights.may_read(room)} == read
        assert {room for room in rooms if rights.may_write(room)} == write
        assert {room for room in rooms if rights.may_join(room)} == read | write


class TestKeySet:
    """RFC 7517 §5: a file of keys."""

    def write(self, directory: Path, *keys: Any) -> Path:
        (directory / "jwks").write_text(json.dumps({"keys": keys}))
        return directory / "jwks"

    def test_a_key_of_each_kind_is_found_by_its_id(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, *(jwk(algorithm) for algorithm in ALGORITHMS), {"use": "enc", "kty": "x"})
        checks = TokenVerifier(f"jwks={path}")
        for algorithm in ALGORITHMS:
            assert checks.verify(token(algorithm, headers={"kid": f"{algorithm}0"})) == "ann"
        wrong = "the token has another algorithm than its key"
        assert reason(checks, token("HS256", headers={"kid": "RS2560"})) == wrong
        assert reason(checks, token(headers={"kid": "other"})) == "the token names no key that is known"
        assert reason(checks, token()) == "the token names no key that is known"

    def test_a_single_key_needs_no_id(self, tmp_path: Path) -> None:
        assert TokenVerifier(f"jwks={self.write(tmp_path, jwk('ES256'))}").verify(token("ES256")) == "ann"

    def test_new_keys_apply_at_once_and_a_broken_file_leaves_the_last(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, jwk("HS256", 1))
        checks = TokenVerifier(f"jwks={path}")
        self.write(tmp_path, jwk("HS256", 1), jwk("HS256", 2))
        assert checks.verify(token(number=2, headers={"kid": "HS2562"})) == "ann"
        path.write_text("{")
        assert checks.verify(token(number=2, headers={"kid": "HS2562"})) == "ann"
        path.unlink()
        assert checks.verify(token(number=1, headers={"kid": "HS2561"})) == "ann"

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("{", "not a JSON Web Key Set"),
            ("[]", "not a JSON Web Key Set"),
            ('{"keys": []}', "there is no key for signatures"),
            ('{"keys": [1]}', "not a JSON Web Key Set"),
            ('{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}', "key 'a': a secret needs 32 bytes or more"),
            ('{"keys": [{"kty": "no", "kid": "a"}]}', "key 'a': "),
        ],
    )
    def test_an_invalid_key_set_is_refused(self, tmp_path: Path, text: str, error: str) -> None:
        (tmp_path / "jwks").write_text(text)
        with pytest.raises(ValueError, match=error):
            TokenVerifier(f"jwks={tmp_path / 'jwks'}")

    def test_keys_of_one_id_or_of_another_algorithm_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="'ES2560' is there twice"):
            TokenVerifier(f"jwks={self.write(tmp_path, jwk('ES256'), jwk('ES256'))}")
        with pytest.raises(ValueError, match="alg must be HS256"):
            TokenVerifier(f"jwks={self.write(tmp_path, jwk('HS256', alg='HS512'))}")


class TestDescription:
    """The option ``--auth jwt:``."""

    @pytest.mark.parametrize("text", ["", "x", "secret", "secret=a:secret=b", "secret=a:key=b", "audience=a", "nope=1"])
    def test_the_error_for_a_bad_description_shows_the_form(self, text: str) -> None:
        with pytest.raises(ValueError, match="give jwt:secret=FILE, jwt:key=FILE or jwt:jwks=FILE"):
            TokenVerifier(text)

    @pytest.mark.parametrize(("leeway", "accepted"), [("300", True), ("301", False), ("-1", False), ("x", False)])
    def test_the_leeway_is_limited(self, tmp_path: Path, leeway: str, accepted: bool) -> None:
        if accepted:
            assert verifier(tmp_path, more=f":leeway={leeway}").leeway == 300
        else:
            with pytest.raises(ValueError, match="give seconds, 300 at most"):
                verifier(tmp_path, more=f":leeway={leeway}")

    @pytest.mark.parametrize(("length", "accepted"), [(31, False), (32, True)])
    def test_a_secret_has_32_bytes_at_least(self, tmp_path: Path, length: int, accepted: bool) -> None:
        (tmp_path / "key").write_text("x" * length)
        if accepted:
            TokenVerifier(f"secret={tmp_path / 'key'}")
        else:
            with pytest.raises(ValueError, match="a secret needs 32 bytes or more"):
                TokenVerifier(f"secret={tmp_path / 'key'}")

    def test_short_keys_and_keys_of_other_kinds_are_refused(self, tmp_path: Path) -> None:
        small, other = rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())
        for key, error in ((small, "an RSA key needs 2048 bits or more"), (other, "give a public key for RS256")):
            pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            (tmp_path / "key").write_bytes(pem)
            with pytest.raises(ValueError, match=error):
                TokenVerifier(f"key={tmp_path / 'key'}")

    def test_workers_get_the_absolute_path_of_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a:key").write_text(SECRET)
        monkeypatch.chdir(tmp_path)
        described = TokenVerifier(r"secret=a\:key:audience=x").description
        assert described == rf"jwt:secret={tmp_path}/a\:key:audience=x"
        assert TokenVerifier(described.removeprefix("jwt:")).keys.path == f"{tmp_path}/a:key"


def _b64(data: str | bytes) -> bytes:
    return urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=")
