"""Paths of RFC 5321 §4.1.2: what is one, what it means, and what nobody may smuggle in with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import BadAddress
from mailstack.mail.address import (
    Mailbox,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
    parse_sender,
)

LABEL_63 = "d" * 63
DOMAIN_255 = ".".join([LABEL_63] * 4)

GOOD_MAILBOXES = [
    ("a@b", "a", "b", "the shortest"),
    ("Mrose@Dbc.Example", "Mrose", "Dbc.Example", "case is kept: RFC 5321 §2.4"),
    ("first.last+tag@example.com", "first.last+tag", "example.com", "a dot-string"),
    ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~", "example.com", "all of atext"),
    ("-x@example.com", "-x", "example.com", "an atom may begin with a hyphen"),
    ("a@a--b.example", "a", "a--b.example", "hyphens within a label"),
    ("a@1.2.3.4", "a", "1.2.3.4", "digits are Let-dig, so this is a domain name"),
    ("a@mail_1.example", "a", "mail_1.example", "an underscore: DNS has it and senders use it"),
    ('"j.doe"@example.com', "j.doe", "example.com", "quotes that are not needed"),
    ('"a b"@example.com', "a b", "example.com", "a space in quotes"),
    ('"a\\ b"@example.com', "a b", "example.com", "a quoted pair"),
    ('"\\\\\\""@example.com', '\\"', "example.com", "backslash and quote, each in a pair"),
    ('"a@b"@example.com', "a@b", "example.com", "an @ in quotes"),
    ('".."@example.com', "..", "example.com", "dots that no dot-string may have"),
    ('">"@example.com', ">", "example.com", "a bracket in quotes does not end the path"),
    ("a@[192.0.2.1]", "a", "[192.0.2.1]", "an IPv4 literal"),
    ("a@[192.000.002.001]", "a", "[192.0.2.1]", "Snum is one to three digits, decimal"),
    ("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]", "an IPv6 literal"),
    ("a@[ipv6:2001:DB8:0:0:0:0:0:1]", "a", "[IPv6:2001:db8::1]", "the same in another spelling"),
    ("josé@example.com", "josé", "example.com", "RFC 6531 §3.3: UTF8-non-ascii in an atom"),
    ('"jo sé"@example.com', "jo sé", "example.com", "and in a quoted string"),
    ("a@bücher.example", "a", "bücher.example", "a U-label, as sent"),
    ("a@xn--bcher-kva.example", "a", "xn--bcher-kva.example", "an A-label"),
    ("l" * 64 + "@b", "l" * 64, "b", "64 octets: RFC 5321 §4.5.3.1.1"),
    ("é" * 32 + "@b", "é" * 32, "b", "64 octets of UTF-8"),
    (f"a@{LABEL_63}.example", "a", f"{LABEL_63}.example", "a label of 63 octets"),
    ("a@" + DOMAIN_255[:252], "a", DOMAIN_255[:252], "a path of 256 octets: RFC 5321 §4.5.3.1.3"),
]

# What is good enough for a sender, which is not looked up.
SENDERS = [
    (".a@b", ".a", "b", "a dot at the beginning"),
    ("a.@b", "a.", "b", "a dot at the end"),
    ("a..c@b", "a..c", "b", "two dots together"),
    ("taro..yamada.@docomo.ne.jp", "taro..yamada.", "docomo.ne.jp", "as providers gave them out"),
    ("l" * 65 + "@b", "l" * 65, "b", "a local-part of 65 octets: RFC 5321 §4.5.3.1 asks for no limit"),
    ('"' + "l l" * 40 + '"@b', "l l" * 40, "b", "in quotes, too"),
    ("é" * 33 + "@b", "é" * 33, "b", "66 octets of UTF-8 in 33 characters"),
    ("l" * 252 + "@b", "l" * 252, "b", "a path of 256 octets: RFC 5321 §4.5.3.1.3"),
]

BAD_MAILBOXES = [
    (" ", "nothing"),
    ("a", "no domain"),
    ("a@", "an empty domain"),
    ("@b", "an empty local-part"),
    ('""@b', "an empty local-part, quoted: it would be the key of a catch-all"),
    ("a b@c", "a space outside quotes"),
    ("a@b c", "a space in the domain"),
    ("a@b@c", "two @"),
    ("a(comment)@b", "a comment is of RFC 5322, not of SMTP"),
    ("Name <a@b>", "a display name"),
    ("a,b@c", "a special outside quotes"),
    ('"a@b', "a quote that is not closed"),
    ('"a"b@c', "text after the quoted string"),
    ('"a"."b"@c', "quoted parts joined by dots: the obsolete form of RFC 5322"),
    ('"a\\"@b', "the backslash takes the closing quote"),
    ('"a\r\nX-Injected: yes"@b', "CRLF in quotes"),
    ('"a\\\rb"@c', "CR in a quoted pair: quoted-pairSMTP has none"),
    ('"a\x00b"@c', "NUL in quotes"),
    ('"a\tb"@c', "TAB in quotes: qtextSMTP has none"),
    ("a\nb@c", "LF in an atom"),
    ("a@b\r", "CR at the end"),
    ("a@b\n", "LF at the end, which $ in a regular expression would let pass"),
    ("a\x7f@b", "DEL"),
    ("a\x85b@c", "NEL, a C1 control that some take as a line end"),
    ("a\u2028b@c", "the Unicode line separator"),
    ("a\ud800b@c", "half of a surrogate pair"),
    ("a@-b", "a label that begins with a hyphen"),
    ("a@b-", "a label that ends with one"),
    ("a@b-.c", "the same within"),
    ("a@.b", "a domain that begins with a dot"),
    ("a@b..", "a domain that ends with two dots"),
    ("a@b..c", "an empty label"),
    ("a@b!c", "no Let-dig"),
    ("a@ß-.example", "a U-label that ends with a hyphen"),
    ("a@\u3002.example", "an empty U-label"),
    ("a@\u0301a.example", "a U-label that begins with a combining mark: RFC 5891 §4.2.3.2"),
    ("a@☃\uff20x", "a full-width @ in a U-label"),
    ("a@[192.0.2.256]", "an octet over 255"),
    ("a@[192.0.2]", "three octets"),
    ("a@[192.0.2.1", "a literal that is not closed"),
    ("a@[192.0.2.1]x", "text after the literal"),
    ("a@[2001:db8::1]", "IPv6 without its tag"),
    ("a@[IPv6:2001:db8::1%eth0]", "a zone is of this host only"),
    ("a@[IPv6:1::2::3]", "two gaps"),
    ("a@[IPv6:\x00::1]", "NUL in a literal"),
    ("a@[x400:name]", "a tag that nobody registered"),
    ("l" * 253 + "@b", "a path of 257 octets, nearly all of it local-part"),
    ("a@" + "d" * 64, "a label of 64 octets"),
    ("a@" + DOMAIN_255[:253], "a path of 257 octets"),
    ("a@" + DOMAIN_255 + ".e", "a domain of 257 octets"),
    ("a@" + "ü" * 60 + ".example", "a U-label whose A-label is too long"),
]


@pytest.mark.parametrize(("text", "local_part", "domain", "reason"), GOOD_MAILBOXES)
def test_a_mailbox_means_its_parts_without_their_spelling(
    text: str, local_part: str, domain: str, reason: str
) -> None:
    expected = Mailbox(local_part, domain)
    assert parse_mailbox(text) == expected, reason
    assert parse_reverse_path(f"<{text}>") == (expected, ""), reason
    assert parse_forward_path(f"<{text}> A=1 B") == (expected, "A=1 B"), reason
    assert parse_mailbox(str(expected)) == expected, "the canonical spelling means the same"


@pytest.mark.parametrize(("text", "reason"), BAD_MAILBOXES)
def test_what_the_grammar_has_not_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadAddress):
        pytest.fail(f"{parse_mailbox(text)}: {reason}")
    for parse in (parse_reverse_path, parse_forward_path):
        with pytest.raises(BadAddress):
            pytest.fail(f"{parse(f'<{text}>')}: {reason}")


@pytest.mark.parametrize(("text", "local_part", "domain", "reason"), SENDERS)
def test_a_sender_is_held_to_less_than_a_recipient(
    text: str, local_part: str, domain: str, reason: str
) -> None:
    assert parse_reverse_path(f"<{text}> A=1") == (Mailbox(local_part, domain), "A=1"), reason
    assert parse_sender(text) == Mailbox(local_part, domain), reason
    for parse in (parse_mailbox, lambda text: parse_forward_path(f"<{text}>")):
        with pytest.raises(BadAddress):
            pytest.fail(f"{parse(text)}: {reason}")


def test_a_path_is_at_most_256_octets_with_its_brackets() -> None:  # RFC 5321 §4.5.3.1.3
    domain = DOMAIN_255[:251]
    assert parse_reverse_path(f"<ab@{domain}>")[0] == Mailbox("ab", domain)
    with pytest.raises(BadAddress, match="256"):
        parse_reverse_path(f"<abc@{domain}>")
    with pytest.raises(BadAddress, match="256"):
        parse_reverse_path(f"<@route:ab@{domain}>")


def test_only_a_path_may_have_a_final_dot() -> None:
    """Elsewhere, as at a login, it is somebody's slip of the pen."""
    with pytest.raises(BadAddress):
        parse_mailbox("a@b.")


BAD_PATHS = [
    ("", "nothing"),
    ("<a@b", "not closed"),
    ("a b@c", "a space within, and no brackets"),
    ('"a b"@c', "the same in quotes"),
    ("a@b,c@d", "two without brackets"),
    ("a@b;", "something directly after an address without brackets"),
    ("a@b\t", "the same"),
    ("@a:b@c", "a source route without brackets"),
    ("jones", "neither brackets nor a domain"),
    ("<a@[192.0.2.1].>", "a dot after an address literal"),
    ("a@b..", "two dots"),
    ("a@b>", "not opened"),
    ("<a@b>SIZE=1", "no space before the parameters"),
    ("<a@b>>", "closed twice"),
    ("<<a@b>>", "opened twice"),
    ("<a@b\t>", "TAB before the end"),
    ("< a@b>", "a space within"),
    (" <a@b>", "a space before: the caller decides whether it lets that pass"),
    ("<>x", "text after the null path"),
    ("<@a:>", "a source route to nowhere"),
    ("<@a,@b>", "a source route alone"),
    ("<@a,b:c@d>", "a route of which one part is no At-domain"),
    ("<@a;@b:c@d>", "a wrong separator"),
    ("<@a@b:c@d>", "no separator"),
    ("<@[192.0.2.300]:c@d>", "the route is ignored, but it is checked"),
    ("<@-a:c@d>", "the same"),
]


@pytest.mark.parametrize(("text", "reason"), BAD_PATHS)
def test_what_is_no_path_is_refused(text: str, reason: str) -> None:
    for parse in (parse_reverse_path, parse_forward_path):
        with pytest.raises(BadAddress):
            pytest.fail(f"{parse(text)}: {reason}")


def test_the_null_reverse_path_is_none() -> None:  # RFC 5321 §4.5.5
    assert parse_reverse_path("<>") == (None, "")
    assert parse_reverse_path("<> SIZE=1") == (None, "SIZE=1")


def test_a_forward_path_is_never_null() -> None:
    with pytest.raises(BadAddress):
        parse_forward_path("<>")


@pytest.mark.parametrize("name", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain_as_a_recipient(name: str) -> None:  # RFC 5321 §4.1.1.3
    assert parse_forward_path(f"<{name}>") == (Mailbox(name, ""), "")
    assert parse_forward_path(f"<{name}> NOTIFY=NEVER") == (Mailbox(name, ""), "NOTIFY=NEVER")
    assert parse_forward_path(name) == (Mailbox(name, ""), "")
    assert parse_forward_path(f"{name} NOTIFY=NEVER") == (Mailbox(name, ""), "NOTIFY=NEVER")
    assert str(Mailbox(name, "")) == name


@pytest.mark.parametrize(
    "text",
    ["<postmaste>", "<postmasters>", "<postmaster>x", "<postmaster", "postmaster>", "postmasters", "<abuse>"],
)
def test_nobody_else_goes_without_a_domain(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_forward_path(text)


def test_postmaster_needs_a_domain_as_a_sender() -> None:
    for text in ("<postmaster>", "postmaster"):
        with pytest.raises(BadAddress):
            parse_reverse_path(text)


@pytest.mark.parametrize(
    "route", ["@relay.example:", "@a.example,@b.example:", "@[192.0.2.1],@[IPv6:::1]:", "@bücher.example:"]
)
def test_a_source_route_is_ignored(route: str) -> None:  # RFC 5321 appendix C
    assert parse_forward_path(f"<{route}joe@example.com> X") == (Mailbox("joe", "example.com"), "X")


def test_the_parts_of_a_path_may_hold_what_would_end_it() -> None:
    assert parse_reverse_path('<"a> SIZE=9 <"@b> SIZE=1') == (Mailbox("a> SIZE=9 <", "b"), "SIZE=1")


def test_the_text_of_a_refusal_repeats_nothing_of_the_input() -> None:
    with pytest.raises(BadAddress) as refusal:
        parse_reverse_path("<evil\r\ntext@b>")
    assert "evil" not in str(refusal.value)
    assert str(refusal.value).isascii()


# -- against an obvious reference ----------------------------------------------------------------

ATEXT = "!#$%&'*+-/=?^_`{|}~" + "".join(c for c in map(chr, range(128)) if c.isalnum())


def reference_mailbox(text: str) -> Mailbox | None:
    """Split at the last @ outside of quotes, and look at every character."""
    local_part, domain = _reference_split(text)
    if not local_part or not domain or len(local_part) > 64 or len(text) > 254:
        return None
    labels = domain.split(".")
    for label in labels:
        if not 1 <= len(label) <= 63 or label[0] == "-" or label[-1] == "-":
            return None
        if not all(c.isalnum() or c in "-_" for c in label):
            return None
    return Mailbox(local_part, domain)


def _reference_split(text: str) -> tuple[str, str]:
    if not text.startswith('"'):
        local_part, _, domain = text.partition("@")
        atoms = local_part.split(".")
        good = all(atom and all(c in ATEXT for c in atom) for atom in atoms)
        return (local_part, domain) if good else ("", "")
    local_part, index = "", 1
    while index < len(text) and text[index] != '"':
        index += text[index] == "\\"
        if index >= len(text) or not " " <= text[index] <= "~":
            return "", ""
        local_part += text[index]
        index += 1
    return (local_part, text[index + 2 :]) if text[index : index + 2] == '"@' else ("", "")


MAILBOX_LIKE = st.text(alphabet='ab1.-_@"\\ <>\r\x7f', max_size=24)
LOCAL_PARTS = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)
UNICODE_LOCAL_PARTS = st.text(
    alphabet=st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=16
)


@given(MAILBOX_LIKE)
def test_the_parser_agrees_with_the_reference(text: str) -> None:
    expected = reference_mailbox(text)
    try:
        found = parse_mailbox(text)
    except BadAddress:
        assert expected is None
    else:
        assert found == expected


@given(MAILBOX_LIKE, st.sampled_from(["", "X=1", "SIZE=1 X"]))
def test_brackets_and_a_final_dot_change_nothing_but_where_there_is_a_blank(text: str, rest: str) -> None:
    """Scanners and printers send neither, or it (RFC 5321 §2.3.5)."""
    behind = f" {rest}" if rest else ""
    try:
        mailbox = parse_mailbox(text)
    except BadAddress:
        return
    ways = [f"<{text}>"]
    if not text.endswith("]"):
        ways.append(f"<{text}.>")
    if " " not in text:
        ways += [way[1:-1] for way in ways]
    for parse in (parse_reverse_path, parse_forward_path):
        for way in ways:
            assert parse(way + behind) == (mailbox, rest)
        if " " in text:
            with pytest.raises(BadAddress):
                parse(text + behind)


@given(LOCAL_PARTS | UNICODE_LOCAL_PARTS)
def test_every_local_part_survives_its_canonical_spelling(local_part: str) -> None:
    mailbox = Mailbox(local_part, "example.com")
    assert parse_mailbox(str(mailbox)) == mailbox
    assert parse_forward_path(f"<{mailbox}> X=1") == (mailbox, "X=1")


@given(st.text(alphabet='.ab+=_" \\@é', min_size=1, max_size=120))
def test_every_sender_survives_its_canonical_spelling(local_part: str) -> None:
    sender = Mailbox(local_part, "example.com")
    assert parse_sender(str(sender)) == sender
    assert parse_reverse_path(f"<{sender}> X=1") == (sender, "X=1")


@given(st.text(alphabet=".ab+=_é", min_size=1, max_size=120))
def test_dots_need_no_quotes_in_a_sender(local_part: str) -> None:
    sender, _ = parse_reverse_path(f"<{local_part}@example.com>")
    assert sender == Mailbox(local_part, "example.com")
    assert parse_sender(str(sender)) == sender


@given(st.text(max_size=300) | MAILBOX_LIKE.map("<{}> X".format))
def test_no_text_makes_the_parsers_fail_otherwise_or_let_a_control_through(text: str) -> None:
    for parse in (parse_reverse_path, parse_forward_path):
        try:
            mailbox, _ = parse(text)
        except BadAddress:
            continue
        assert not any(c < " " or "\x7f" <= c < "\xa0" or c in "\u2028\u2029" for c in str(mailbox))


@pytest.mark.parametrize("text", ["a" * 200_000, "a." * 100_000, "-" * 200_000, "<@" + "a," * 100_000])
def test_hostile_lengths_take_linear_time(text: str) -> None:  # quadratic would outlast the time limit
    for hostile in (text, "a@" + text, "<" + text, "<a@" + text, '<"' + text, "<@a:" + text):
        with pytest.raises(BadAddress):
            parse_forward_path(hostile)
