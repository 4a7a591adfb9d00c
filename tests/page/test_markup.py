from idealized_runtime.page.markup import download, image, join, link, table, tag

BAD = "<script>alert('&\"')</script>"
ESCAPED = "&lt;script&gt;alert(&#x27;&amp;&quot;&#x27;)&lt;/script&gt;"


def test_text_is_escaped_wherever_it_stands():
    made = [tag("p", BAD), tag("p", "x", title=BAD), link(BAD, BAD), table([BAD], [[BAD, BAD]], caption=BAD),
            image(b"", BAD), download(BAD, b"", "text/csv"), join([BAD])]  # fmt: skip
    for html in made:
        assert "<script" not in html
        assert ESCAPED in html


def test_elements_are_not_escaped_again():
    assert tag("p", tag("b", "a & b"), " < ") == "<p><b>a &amp; b</b> &lt; </p>"


def test_attributes_are_spelled_as_html_has_them():
    assert tag("p", class_="a", aria_label="b", data_copy=None) == '<p class="a" aria-label="b"></p>'
