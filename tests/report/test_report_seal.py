"""The report says whether the proof is what was signed."""

import html
import re

import pytest

from perflab.report import cards, proof
from perflab.report.seal import seal
from perflab.shadow.audit.signature import SIGNATURE, Signer, fingerprint


def words(markup):
    """Return the text of a piece, whitespace folded."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", str(markup))).strip())


@pytest.fixture
def signed(make_run, tmp_path):
    """Return a plausible run that is signed."""
    run = make_run(tmp_path / "20261123T120000-shadow-ab12")
    Signer(b"key").sign(run.path)
    return run


def test_a_signed_run_names_its_key(signed):
    """Fingerprint and moment are printed, in a note, not in an alarm."""
    said = seal(signed)
    assert "Signed, and unaltered when this report was made." in words(said)
    assert fingerprint(Signer(b"key").public_key) in words(said)
    assert "alarm" not in said


def test_an_altered_run_says_so_on_the_first_screen_and_in_red(signed):
    """The proof page, the banner and the card: none of them repeats what was altered as if it were true."""
    # Given
    found = signed.isolation
    signed.write_isolation({**found, "proven": 2})
    # Then
    said = proof.isolation(signed)._repr_html_()
    assert '<div class="alarm"><h3>Altered since it was signed</h3>' in said
    assert "isolation.json: 'proven' was altered" in words(said)
    banner = cards.banner(signed)._repr_html_()
    assert "The proof was altered after it was signed." in words(banner)
    assert "is-leaked" in banner
    card = cards.summary(signed)._repr_html_()
    assert 'card is-bad"><h2>Isolation</h2><p class="value">altered' in card


def test_a_run_without_or_with_a_broken_signature(signed):
    """Not signed is said; a signature that cannot be read is an alarm without a key."""
    (signed.path / SIGNATURE).write_text("[]")
    assert "cannot be read as a signature" in words(seal(signed))
    (signed.path / SIGNATURE).unlink()
    assert "This proof is not signed" in words(seal(signed))
