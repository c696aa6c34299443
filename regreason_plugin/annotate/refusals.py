"""Refusals: a model's apology in place of an answer, in five languages.

A text is a refusal if it is short and its first words are the model's own apology or inability: "I
am sorry, but I can't help with that". Words about another's refusal ("The assistant refuses to
help") begin otherwise.
"""

from __future__ import annotations

import re

# In characters. A refusal is short; a long text explains something, whatever its first words are.
LONGEST_REFUSAL = 500

_LEAD = re.compile(r"\A[\s*_#>~-]+")
_QUOTED = re.compile(r"\A[\"'`\u201c\u201e\u00ab](.*)[\"'`\u201d\u201c\u00bb]\Z", re.DOTALL)
_CURLY = str.maketrans("\u2018\u2019\u02bc", "'''")

_CANNOT = (
    r"(?:can't|cannot|can not|cant|couldn't|could not|won't|will not|am unable to|'m unable to|"
    r"am not able to|'m not able to|am not allowed to|'m not allowed to|am not permitted to|"
    r"'m not permitted to|am not comfortable|'m not comfortable|don't feel comfortable|"
    r"do not feel comfortable|must decline|have to decline|decline to|must refuse|refuse to|"
    r"don't have|do not have|have no|don't|do not|am not|'m not|am just|'m just)"
)
_DO = (
    r"(?:help|assist|provid|comply|fulfil|answer (?:that|this|your|the question)|respond|engag|"
    r"discuss|generat|creat|produc|writ|participat|process|continu|complet|support|offer|shar|"
    r"access|do (?:that|this|so)|talk about|"
    r"(?:rat|evaluat|judg|scor|assess|explain)(?:e|ing)? (?:this|that|the conv|the cont|such|your))"
)
_REFUSALS = (
    # English
    r"(?:(?:hello|hi|hey|oh|well)[,.!]? )?"
    r"(?:(?:i'm|i am|we're|we are)? ?(?:\w+ )?sorry|(?:my |our )?(?:\w+ )?apologies|"
    r"i (?:\w+ )?apologi[sz]e|unfortunately|regrettably|i'm afraid|i am afraid)"
    r"\b(?: (?:for|about|to) [^.!?]{1,60}?)?[ ,.!;:\u2014-]+"
    r"(?:but |however,? |that |as an? [^,.]{1,60}, )*"
    rf"(?:i|we)(?: \w+)? ?{_CANNOT}\b",
    rf"(?:as|i'm|i am|being) (?:just |only )?an? (?:ai|artificial|(?:large )?language model)\b"
    rf"[^.!?]{{0,80}}?\b(?:i(?: \w+)? ?{_CANNOT}\b|(?:and|so) {_CANNOT}\b|unable\b)",
    rf"(?:i|we)(?: \w+)? ?{_CANNOT} (?:\w+ ){{0,4}}?{_DO}",
    r"(?:i'm|i am) (?:\w+ )?sorry(?: for [^.!?]{1,60})?[.!]*\Z",
    r"(?:i (?:\w+ )?apologi[sz]e|(?:my |our )apologies)(?: for [^.!?]{1,60})?[.!]*\Z",
    r"(?:sorry[,.!]? )?(?:(?:that|this|it)(?:'s| is)) (?:not )?something (?:that )?i (?:can|can't|"
    r"cannot|am|'m)\b",
    r"(?:this|your|the) (?:request|content|prompt|message) (?:violates|goes against|is against|"
    r"was (?:blocked|flagged|filtered))\b",
    # German
    r"(?:(?:es )?tut mir (?:\w+ )?leid|entschuldig\w+|verzeihung|leider|bedauerlicherweise|"
    r"als (?:eine? )?(?:ki\b|k\u00fcnstliche|(?:gro\u00dfes |ki-)?sprachmodell))"
    r"[^.!?]{0,30}?\b(?:(?:kann|darf|werde|m\u00f6chte) ich|"
    r"ich (?:kann|darf|werde|m\u00f6chte|bin))\b[^.!?]{0,99}?\b(?:nicht|kein\w*)\b",
    r"ich (?:kann|darf|werde|m\u00f6chte) [^.!?]{0,80}?\b(?:nicht|kein\w*)\b[^.!?]{0,80}?\b"
    r"(?:helfen|weiterhelfen|unterst\u00fctzen|beantworten|nachkommen|erf\u00fcllen|bereitstellen|"
    r"anbieten|behilflich)\b",
    r"(?:(?:es )?tut mir (?:\w+ )?leid|ich bitte um entschuldigung)[.!]*\Z",
    # French
    r"(?:(?:je suis |nous sommes )?(?:\w+ )?d\u00e9sol\u00e9e?s?|je m'excuse|"
    r"(?:toutes )?mes excuses|malheureusement|je regrette|"
    r"en tant qu(?:e |')(?:ia|intelligence artificielle|mod\u00e8le|assistant))"
    r"\b[^.!?]{0,30}?\bje ne (?:peux|puis|suis|saurais|dispose|poss\u00e8de|veux)\b",
    r"je ne (?:peux|puis|saurais|suis pas en mesure de|suis pas capable de|suis pas autoris\w+ "
    r"\u00e0)(?: \w+){0,3}? ?(?:(?:vous|t'|y|l'|d') ?)?(?:aider|r\u00e9pondre|fournir|assister|"
    r"satisfaire|donner suite|traiter|acc\u00e9der|continuer)\b",
    r"je suis (?:\w+ )?d\u00e9sol\u00e9e?[.!]*\Z",
    # Spanish
    r"(?:lo siento|lo lamento|perd[o\u00f3]n\w*|disculp\w+|lamentablemente|desafortunadamente|"
    r"por desgracia|como (?:un |una )?(?:modelo de|ia\b|inteligencia artificial|asistente))"
    r"[^.!?]{0,30}?[ ,.]no (?:puedo|podr\u00e9|me es posible|estoy|soy capaz|tengo)\b",
    r"no (?:puedo|podr\u00e9|me es posible|soy capaz de|estoy en condiciones de)(?: \w+){0,2}? "
    r"(?:ayudar|asistir|responder|proporcionar|cumplir|ofrecer|brindar|continuar|procesar|"
    r"completar|realizar|hacer eso)\w*",
    r"lo (?:siento|lamento)(?: mucho)?[.!]*\Z",
    # Chinese: cannot (help), after an apology or after "as a language model", or alone
    r"(?:\u6211?(?:\u5f88|\u975e\u5e38|\u5341\u5206|\u771f\u7684)?"
    r"(?:\u62b1\u6b49|\u5bf9\u4e0d\u8d77|\u5c0d\u4e0d\u8d77|\u4e0d\u597d\u610f\u601d|\u9057\u61be)"
    r"[\s,.!\uff0c\u3002\uff01]*(?:\u4f46\u662f?|\u4e0d\u8fc7)?)?"
    r"(?:\u4f5c\u4e3a[^\u3002]{0,20}?(?:AI|ai|\u4eba\u5de5\u667a\u80fd|\u6a21\u578b)[^\u3002]{0,9}?"
    r"[,\uff0c])?"
    r"\u6211?(?:\u6682\u65f6|\u76ee\u524d|\u6050\u6015)?"
    r"(?:\u65e0\u6cd5|\u7121\u6cd5|\u4e0d\u80fd|\u6ca1\u529e\u6cd5)"
    r"(?:\u534f\u52a9|\u5e2e|\u4e3a\u60a8|\u4e3a\u4f60|\u7ed9\u60a8|\u7ed9\u4f60|\u63d0\u4f9b|"
    r"\u56de\u7b54|\u6ee1\u8db3|\u5b8c\u6210|\u5904\u7406|\u8ba8\u8bba|\u7ee7\u7eed|\u56de\u5e94)",
    r"(?:\u5f88|\u975e\u5e38)?(?:\u62b1\u6b49|\u5bf9\u4e0d\u8d77|\u5c0d\u4e0d\u8d77)"
    r"[.!\u3002\uff01]*\Z",
)
_REFUSAL = re.compile("|".join(f"(?:{one})" for one in _REFUSALS), re.IGNORECASE)
# "I can't give it a higher score", "I can't find a fault": a judgement, not a refusal.
_JUDGEMENT = re.compile(
    rf"\A[^.!?]*(?:{_CANNOT} (?:\w+ )?(?:see|find|think|tell|agree|fault|imagine|say|know)\b|"
    r"\b(?:higher|lower|better|full|top|perfect) (?:score|rating|mark|grade)|"
    r"\b(?:higher|lower|more|less) than\b|\b(?:above|below) (?:an? )?\d)",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether a text is a model's refusal, by its first words and its length."""
    text = text.strip()
    if whole := _QUOTED.match(text):
        text = whole[1]
    text = _LEAD.sub("", text.translate(_CURLY))
    if len(text) > LONGEST_REFUSAL or not _REFUSAL.match(text):
        return False
    return not _JUDGEMENT.match(text)
