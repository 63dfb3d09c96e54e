package dev.edgebert.tokenizer

import java.io.InputStream

/** Text to ids, from a bundle's tokenizer.json. Nothing in it changes: threads can share one. */
public class Tokenizer private constructor() {
    /** Which model splits words: `wordpiece` or `unigram`. */
    public val kind: String get() = TODO()

    /** Every id is below it; tokens added on top of the vocabulary count. */
    public val vocabSize: Int get() = TODO()
    public val padId: Int get() = TODO()
    public val clsId: Int get() = TODO()
    public val sepId: Int get() = TODO()
    public val maskId: Int get() = TODO()
    public val unkId: Int get() = TODO()

    /** What a piece inside of a word begins with; of a WordPiece model. */
    public val continuingPrefix: String get() = TODO()

    /** One text, or a pair; cut to [maxLength] tokens, the longer text first. */
    @JvmOverloads
    public fun encode(text: String, pair: String? = null, maxLength: Int? = null): Encoding = TODO()

    /** [text] whole and a longer [pair] in windows of [maxLength] tokens that share [stride] of the pair's. */
    public fun windows(text: String, pair: String, maxLength: Int, stride: Int): List<Encoding> = TODO()

    /** The text that ids stand for. */
    public fun decode(ids: IntArray, skipSpecial: Boolean = true): String = TODO()

    /** Pieces joined as the tokenizer's decoder spells them; by spaces where it has none. */
    public fun join(tokens: List<String>): String = TODO()

    public companion object {
        /** Reads a tokenizer.json, and closes it. */
        @JvmStatic
        public fun read(json: InputStream): Tokenizer = TODO()
    }
}
