package dev.edgebert.tokenizer

import dev.edgebert.EdgebertException
import java.io.InputStream

/**
 * Text to ids, from a bundle's tokenizer.json: the ids of the Rust library `tokenizers`, as the Python package has them.
 * Nothing in it changes: threads can share one.
 */
public class Tokenizer private constructor(file: TokenizerFile) {
    private val model = file.model
    private val added = AddedTokens(model, file.normalizer)
    private val preTokenizers = file.preTokenizer
    private val decoder = file.decoder
    private val roles: Roles
    private val trimmed: PostProcessor
    private val framing: Framing

    init {
        added.add(file.added)
        roles = Roles.of(added, model)
        trimmed = file.postProcessor ?: Framing(doubled = false, typed = true).processor(roles)
        framing = Framing.of(trimmed, roles, rawIds("a"), rawIds("b"))
    }

    /** Which model splits words: `wordpiece`, `unigram` or `bpe`. */
    public val kind: String get() = model.kind

    /** Every id is below it; tokens added on top of the vocabulary count. */
    public val vocabSize: Int = maxOf(model.pieces.size, added.size)

    /** The id that fills the end of a row. */
    public val padId: Int get() = roles.pad

    /** The id that starts a sequence. */
    public val clsId: Int get() = roles.cls

    /** The id that ends each text. */
    public val sepId: Int get() = roles.sep

    /** The id to be guessed in masked language modelling. */
    public val maskId: Int get() = roles.mask

    /** The id of what the vocabulary cannot spell; -1 where it spells every byte and has no token for that. */
    public val unkId: Int get() = roles.unknown

    /** What a piece inside of a word begins with; of a WordPiece model, else empty. */
    public val continuingPrefix: String get() = (model as? WordPiece)?.continuingPrefix.orEmpty()

    /**
     * One text, or a pair, as ids.
     *
     * @param pair the second text; an empty one is one too.
     * @param maxLength cut to this many tokens, the longer text first; null cuts nothing.
     * @throws EdgebertException a text has a lone surrogate; [maxLength] leaves no room for the special tokens.
     */
    @JvmOverloads
    public fun encode(text: String, pair: String? = null, maxLength: Int? = null): Encoding {
        val texts = listOfNotNull(text, pair)
        val needed = framing.specials(texts.size)
        if (maxLength != null && maxLength < needed) {
            throw EdgebertException("length $maxLength has no room for [CLS] and [SEP]: give $needed or more, or null")
        }
        val parts = texts.map { split(it) }
        val sizes = parts.map { it.size }
        val keep = if (maxLength == null) sizes else longestFirst(sizes, maxLength - needed)
        return framed(parts, keep.map { 0 until it })
    }

    /**
     * [text] whole and a longer [pair] in windows.
     *
     * @param maxLength tokens of a window at most.
     * @param stride tokens of [pair] that a window shares with the next; half of them where [text] leaves no more.
     * @throws EdgebertException as [encode], and where [text] leaves no room for a token of [pair].
     */
    public fun windows(text: String, pair: String, maxLength: Int, stride: Int): List<Encoding> {
        val first = split(text)
        val second = split(pair)
        val room = maxLength - first.size - framing.specials(2)
        if (room < 1) {
            throw EdgebertException(
                "the first text has ${first.size} tokens, which leaves no room for another in $maxLength: shorten it."
            )
        }
        val step = room - if (stride < room) stride else room / 2
        val last = maxOf(second.size - room, 0) + step
        return (0 until last step step).map { start ->
            framed(listOf(first, second), listOf(0 until first.size, start until minOf(start + room, second.size)))
        }
    }

    /**
     * The text that ids stand for, as near as the vocabulary allows.
     *
     * @throws EdgebertException an id is not in the vocabulary.
     */
    public fun decode(ids: IntArray, skipSpecial: Boolean = true): String {
        val outside = ids.firstOrNull { it !in 0 until vocabSize }
        if (outside != null) throw EdgebertException("id $outside is not in the vocabulary: ids are 0 to ${vocabSize - 1}")
        return join(ids.toList().mapNotNull { added.token(it) }.filter { !skipSpecial || !added.isSpecial(it) })
    }

    /** Pieces joined as the tokenizer's decoder spells them; by spaces where it has none. */
    public fun join(tokens: List<String>): String {
        if (decoder == null) return tokens.joinToString(" ")
        return decoder.fold(tokens) { left, step -> step.decode(left) }.joinToString("")
    }

    /** How an id is spelled. */
    private fun token(id: Int): String = added.token(id) ?: refuse("it has no token of id $id")

    private fun rawIds(text: String): IntArray = split(text).let { it.ids.copyOf(it.size) }

    /** A text's tokens, without special ones. */
    private fun split(text: String): Tokens {
        val codes = codePoints(text) { place, unit ->
            throw EdgebertException(
                "the text has a lone surrogate, ${codeName(unit)} at character $place, which no UTF-8 holds: replace it first"
            )
        }
        val words = preTokenizers.fold(added.split(codes)) { spans, step -> splitFurther(spans, step) }
        val tokens = Tokens(codes.size / 3 + 8)
        for ((number, word) in words.withIndex()) {
            tokens.word = number
            if (word.id == Span.NONE) {
                model.tokenize(word, tokens)
            } else {
                tokens.add(word.id, word.text.string(word.from, word.to), word.text, word.from, word.to)
            }
        }
        trimmed.trim(tokens)
        if (codes.size < text.length) tokens.placesIn(codes)
        return tokens
    }

    private fun splitFurther(spans: List<Span>, step: PreTokenizer): List<Span> {
        val words = ArrayList<Span>(2 * spans.size)
        for (span in spans) if (span.id == Span.NONE) step.split(span, words) else words += span
        return words
    }

    /** Special tokens around the pieces of one or two texts, each from one place to another. */
    private fun framed(parts: List<Tokens>, keep: List<IntRange>): Encoding {
        val encoding = EncodingBuilder(keep.sumOf { it.count() } + framing.specials(parts.size))
        encoding.special(roles.cls, token(roles.cls), 0)
        for ((number, part) in parts.withIndex()) {
            val type = if (number == 1 && framing.typed) 1 else 0
            if (number == 1 && framing.doubled) encoding.special(roles.sep, token(roles.sep), 0)
            encoding.text(part, keep[number], type, number)
            encoding.special(roles.sep, token(roles.sep), type)
        }
        return encoding.build()
    }

    public companion object {
        /**
         * Reads a tokenizer.json, and closes it.
         *
         * @throws EdgebertException it is damaged, or has a part that this library does not know.
         */
        @JvmStatic
        public fun read(json: InputStream): Tokenizer = Tokenizer(TokenizerFile.read(json))
    }
}

/**
 * How many tokens to keep of one text or two: the longer gives way until both are equal, then both do; the odd token goes to
 * the longer one.
 */
private fun longestFirst(sizes: List<Int>, room: Int): List<Int> {
    if (sizes.sum() <= room) return sizes
    if (sizes.size == 1) return listOf(room)
    val less = minOf(sizes[0], sizes[1], room / 2)
    return if (sizes[0] > sizes[1]) listOf(room - less, less) else listOf(less, room - less)
}

/** Puts an [Encoding] together. */
private class EncodingBuilder(size: Int) {
    private val ids = IntArray(size)
    private val types = IntArray(size)
    private val tokens = arrayOfNulls<String>(size)
    private val starts = IntArray(size)
    private val ends = IntArray(size)
    private val special = BooleanArray(size)
    private val words = IntArray(size)
    private val sequences = IntArray(size)
    private var at = 0

    fun special(id: Int, token: String, type: Int) {
        ids[at] = id
        types[at] = type
        tokens[at] = token
        special[at] = true
        words[at] = -1
        sequences[at++] = -1
    }

    fun text(part: Tokens, keep: IntRange, type: Int, sequence: Int) {
        for (i in keep) {
            ids[at] = part.ids[i]
            types[at] = type
            tokens[at] = part.texts[i]
            starts[at] = part.starts[i]
            ends[at] = part.ends[i]
            words[at] = part.words[i]
            sequences[at++] = sequence
        }
    }

    fun build(): Encoding = Encoding(ids, types, tokens.requireNoNulls(), starts, ends, special, words, sequences)
}
