package dev.edgebert.tokenizer

import dev.edgebert.EdgebertException
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class TokenizerTest {
    private val bert = read(Samples.WORDS)
    private val xlm = read(Samples.PIECES)
    private val roberta = read(Samples.BYTES)

    @Test
    fun placesAreThoseOfAString() {
        val text = "😀 Hé\u0301llo 😀wake"
        val found = bert.encode(text)
        assertEquals(listOf("[CLS]", "[UNK]", "h", "##e", "##llo", "[UNK]", "[SEP]"), found.tokens.toList())
        assertEquals("é", text.substring(found.starts[3], found.ends[3]))
        assertEquals("😀wake", text.substring(found.starts[5], found.ends[5]))
        assertContentEquals(intArrayOf(-1, 0, 1, 1, 1, 2, -1), found.words)
        val span = xlm.encode("😀😀 abc").let { it.starts.last { start -> start > 0 } to it.ends.max() }
        assertEquals("abc", "😀😀 abc".substring(span.first, span.second))
    }

    @Test
    fun pairsHaveTypesAndSequences() {
        val found = bert.encode("h o", "")
        assertEquals(listOf("[CLS]", "h", "o", "[SEP]", "[SEP]"), found.tokens.toList())
        assertContentEquals(intArrayOf(0, 0, 0, 0, 1), found.typeIds)
        assertContentEquals(intArrayOf(-1, 0, 0, -1, -1), found.sequences)
        assertContentEquals(booleanArrayOf(true, false, false, true, true), found.special)
        val doubled = xlm.encode("a", "b")
        assertEquals(2, doubled.tokens.toList().windowed(2).single { it == listOf("</s>", "</s>") }.size)
        assertTrue(doubled.typeIds.all { it == 0 })
    }

    @Test
    fun theLongerTextIsCutFirst() {
        fun kept(first: Int, second: Int, length: Int): List<Int> {
            val found = bert.encode("h ".repeat(first), "o ".repeat(second), length)
            return listOf(found.sequences.count { it == 0 }, found.sequences.count { it == 1 })
        }
        assertEquals(listOf(5, 3), kept(9, 3, 11))
        assertEquals(listOf(4, 4), kept(9, 9, 11))
        assertEquals(listOf(4, 5), kept(8, 9, 12))
        assertEquals(listOf(0, 0), kept(2, 2, 3))
        assertContains(refused { bert.encode("h", "o", 2) }, "give 3 or more")
        assertContains(refused { bert.encode("h", maxLength = 1) }, "give 2 or more")
    }

    @Test
    fun windowsShareWhatTheyAreTold() {
        val windows = bert.windows("h", "h e l l o h e", 7, 1)
        val starts = windows.map { window -> window.starts[window.sequences.indexOf(1)] }
        assertEquals(listOf(0, 4, 8), starts)
        assertTrue(windows.all { it.size <= 7 })
        assertEquals(1, bert.windows("h", "", 7, 1).size)
        assertContains(refused { bert.windows("h h h h", "o", 7, 1) }, "leaves no room")
    }

    @Test
    fun loneSurrogatesAreRefusedByTheirPlace() {
        assertContains(refused { bert.encode("😀b\uD800c") }, "lone surrogate, U+D800 at character 2")
        assertContains(refused { xlm.encode("a", "\uDFFF") }, "lone surrogate, U+DFFF at character 0")
        assertContains(refused { xlm.encode("\uD83D") }, "U+D83D at character 0")
    }

    @Test
    fun aMissingMaskGetsTheNextId() {
        assertEquals(bert.vocabSize - 1, bert.maskId)
        assertEquals(listOf("[CLS]", "h", "[MASK]", "[SEP]"), bert.encode("h[MASK]").tokens.toList())
    }

    @Test
    fun decodingSkipsSpecialTokensWhereItIsAsked() {
        val ids = bert.encode("hello, hello").ids
        assertEquals("hello, hello", bert.decode(ids))
        assertEquals("[CLS] hello, hello [SEP]", bert.decode(ids, skipSpecial = false))
        assertContains(refused { bert.decode(intArrayOf(9_999)) }, "id 9999 is not in the vocabulary: ids are 0 to")
        assertEquals("hello o", bert.join(listOf("h", "##ello", "o")))
    }

    @Test
    fun whatIsUnknownIsRefusedByItsName() {
        assertContains(refused { read(Samples.WORDS.replace("BertPreTokenizer", "Split")) }, "'Split' among its pretokenizers")
        assertContains(refused { read(Samples.WORDS.replace("BertNormalizer", "Mystery")) }, "'Mystery' among its normalizers")
        assertContains(refused { read(Samples.WORDS.replace("\"WordPiece\",\"unk", "\"WordLevel\",\"unk")) }, "'WordLevel' model")
        assertContains(refused { read(Samples.WORDS.replace("\"WordPiece\",\"unk", "\"BPE\",\"unk")) }, "its bpe model has no merges")
        assertContains(refused { read(Samples.PIECES.replace("Metaspace", "Split")) }, "'Split' among its")
        assertContains(refused { read(Samples.PIECES.replace("Metaspace", "ByteLevel")) }, "its add_prefix_space is null")
        assertContains(refused { read(Samples.WORDS.replace("TemplateProcessing", "ByteLevel")) }, "among its processors")
        assertContains(refused { read(Samples.PIECES.replace(" {2,}", "(a+)+b")) }, "(a+)+b")
        assertContains(refused { read(Samples.WORDS.replace("\"1.0\"", "\"2.0\"")) }, "version is '2.0'")
        assertContains(refused { read(Samples.WORDS.replace("\"[SEP]\":3", "\"[END]\":3")) }, "[SEP]")
        assertContains(refused { read(Samples.WORDS.replace(Samples.SEPARATOR, "")) }, "it is not of BERT's family")
    }

    @Test
    fun wordsAreMergedOfBytes() {
        val text = "the the  thé 😀 they'll"
        val found = roberta.encode(text)
        val wanted = listOf("<s>", "the", "Ġthe", "Ġ", "Ġ", "th", "Ã", "©", "Ġ", "ð", "Ł", "ĺ", "Ģ", "Ġthe", "y", "'", "ll", "</s>")
        assertEquals(wanted, found.tokens.toList())
        assertEquals("the", text.substring(found.starts[2], found.ends[2]))
        assertEquals("é", text.substring(found.starts[7], found.ends[7]))
        assertEquals("😀", text.substring(found.starts[10], found.ends[10]))
        assertEquals(text, roberta.decode(found.ids))
        assertEquals("\uFFFDa\uFFFD\uFFFD\uFFFD中", roberta.join(listOf("ðŁĺ", "a", "íłĢ", "中")))
        assertContentEquals(intArrayOf(-1, 0, 1, 2, 3), found.words.copyOf(5))
        assertEquals(listOf("<s>", "a", "<mask>", "</s>"), roberta.encode("a <mask>").tokens.map { it.trim() })
        assertEquals("bpe", roberta.kind)
        assertEquals(3, roberta.unkId)
        assertEquals(-1, read(Samples.BYTES.replace("\"<unk>\":3,", "")).unkId)
    }

    @Test
    fun bytesThatAreNoTextAreReplacedAsRustDoes() {
        // Java 17 makes one mark of the first, and Android has been of several minds.
        val cases = listOf(
            "ED B4" to "\uFFFD\uFFFD",
            "F0 9F 98" to "\uFFFD",
            "F4 90 80 41" to "\uFFFD\uFFFD\uFFFDA",
            "E0 80" to "\uFFFD\uFFFD",
            "C1 80" to "\uFFFD\uFFFD",
            "E4 B8 41" to "\uFFFDA",
            "F0 90 41 80" to "\uFFFDA\uFFFD",
            "F5 80 80 80" to "\uFFFD\uFFFD\uFFFD\uFFFD",
            "FF FE" to "\uFFFD\uFFFD",
            "E4 B8 AD C3 A9" to "中é",
            "F0 9F 98 80 80" to "😀\uFFFD",
            "C2" to "\uFFFD",
            "EF BF" to "\uFFFD",
            "ED 9F BF" to "\uD7FF",
            "F4 8F BF BF" to "\uDBFF\uDFFF",
            "F0 8F BF BF" to "\uFFFD\uFFFD\uFFFD\uFFFD",
        )
        for ((bytes, text) in cases) {
            assertEquals(text, lossyUtf8(bytes.split(" ").map { it.toInt(16).toByte() }.toByteArray()), bytes)
        }
    }

    @Test
    fun longRunsTakeTimeInProportion() {
        for (text in listOf("the".repeat(100_000), " ".repeat(300_000), "é'll".repeat(75_000))) {
            val started = System.nanoTime()
            assertTrue(roberta.encode(text).size > 1_000)
            assertTrue(System.nanoTime() - started < 5e9)
        }
    }

    @Test
    fun byteLevelModelsThatCannotBeMergedAreRefused() {
        fun changed(from: String, to: String): String {
            assertContains(Samples.BYTES, from)
            return refused { read(Samples.BYTES.replace(from, to)) }
        }
        assertContains(changed("\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Whitespace\""), "no ByteLevel before it")
        assertContains(changed("\"th\":300,", ""), "its vocabulary lacks 'th'")
        assertContains(changed("\"!\":", "\"!!\":"), "lacks 1 of the 256 bytes, and has no unk_token")
        assertContains(changed("\"th\":300", "\"th\":301"), "have the same id")
        assertContains(changed("[\"t\",\"h\"]", "[\"t\"]"), "merge 0 is no pair of texts")
        assertContains(changed("[\"t\",\"h\"]", "\"t h\""), "more than one way")
        assertContains(changed("[\"t\",\"h\"],", "[\"t\",\"h\",\"e\"],"), "tokenizer.json")
        assertContains(changed("[[\"t\",\"h\"],[\"l\",\"l\"],[\"th\",\"e\"],[\"Ġ\",\"the\"]]", "[\"t h e\"]"), "'t h e' is no pair of texts")
        assertContains(changed("\"dropout\":null", "\"dropout\":0.5"), "dropout is 0.5")
        assertContains(changed("\"byte_fallback\":false", "\"byte_fallback\":true"), "byte_fallback")
        assertContains(changed("\"end_of_word_suffix\":\"\"", "\"end_of_word_suffix\":\"</w>\""), "end_of_word_suffix is '</w>'")
        val lines = "[\"#version: 0.2\",\"t h\",\"l l\",\"th e\",\"Ġ the\"]"
        val old = Samples.BYTES.replace(Regex("\\[\\[\"t\".*]]"), lines).replace("\"type\":\"BPE\",", "")
        assertContentEquals(roberta.encode("all the they").ids, read(old).encode("all the they").ids)
    }

    @Test
    fun damagedNormalizationTablesAreRefused() {
        val table = Regex("\"precompiled_charsmap\":\"([^\"]*)\"").find(Samples.PIECES)!!.groupValues[1]
        fun changed(with: String) = refused { read(Samples.PIECES.replace(table, with)) }
        assertContains(changed("****"), "not base64")
        assertContains(changed(""), "says 0 bytes")
        assertContains(changed("/////w=="), "says 4294967295 bytes and has 0")
        assertContains(changed("BAAAAP///38AAA=="), "points outside")
        assertContains(changed("BAAAAAAAAIAAAA=="), "points outside")
    }

    @Test
    fun anyDamageIsOneException() {
        val random = Random(17)
        val pieces = listOf("null", "{}", "[]", "-1", "1e999", "\"\"", "true", "99999999999999999999", "\"\\ud800\"", ",", "}", "0.5")
        for (whole in listOf(Samples.WORDS, Samples.PIECES, Samples.BYTES)) {
            val places = Regex("\"[^\"]*\"|-?[0-9.]+|true|false|null").findAll(whole).map { it.range }.toList()
            repeat(3_000) {
                val text = when (random.nextInt(3)) {
                    0 -> whole.replaceRange(places[random.nextInt(places.size)], pieces[random.nextInt(pieces.size)])
                    1 -> whole.substring(0, random.nextInt(whole.length))
                    else -> whole.replaceRange(random.nextInt(whole.length).let { it..it }, random.nextInt(32, 127).toChar().toString())
                }
                try {
                    read(text).encode("héllo  a\u0301 ①`` 😀", "b")
                } catch (error: EdgebertException) {
                    assertContains(error.message!!, "tokenizer.json")
                }
            }
        }
    }

    @Test
    fun whatIsTooMuchIsRefused() {
        assertContains(refused { read("[".repeat(100_000)) }, "tokenizer.json")
        assertContains(refused { read("{\"a\":" + "[".repeat(100) + "]".repeat(100) + "}") }, "nests deeper")
        assertContains(refused { read(Samples.WORDS.replace("\"h\":4", "\"h\":1048576")) }, "whole number from 0 to 1048575")
        assertContains(refused { read("{\"a\":\"" + "a".repeat(33 shl 20) + "\"}") }, "bytes")
        assertContains(refused { read("{\"a\":[0" + ",0".repeat(1_000_000) + "]}") }, "more than 1000000 values")
        assertContains(refused { read(Samples.WORDS.replace("\"h\":4", "\"h\":4,\"h\":5")) }, "comes twice")
        val latin = Samples.WORDS.replace("##llo", "##lló").toByteArray(Charsets.ISO_8859_1)
        assertContains(refused { Tokenizer.read(latin.inputStream()) }, "tokenizer.json")
    }

    @Test
    fun threadsCanShareOne() {
        val texts = List(200) { "hello, hé  ①b $it".repeat(it % 7 + 1) }
        val alone = texts.map { xlm.encode(it).ids.toList() }
        val found = texts.parallelStream().map { xlm.encode(it).ids.toList() }.toList()
        assertEquals(alone, found)
    }

    private fun refused(act: () -> Any): String = assertFailsWith<EdgebertException> { act() }.message!!

    private fun read(json: String): Tokenizer = Tokenizer.read(json.byteInputStream())
}
