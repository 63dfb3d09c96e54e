package dev.edgebert.tokenizer

import com.google.gson.Strictness
import com.google.gson.stream.JsonReader
import com.google.gson.stream.JsonToken
import dev.edgebert.EdgebertException
import java.io.FilterInputStream
import java.io.IOException
import java.io.InputStream
import java.io.InputStreamReader

/** Says that a tokenizer.json cannot be used. */
internal fun refuse(what: String): Nothing = throw EdgebertException("tokenizer.json is no usable tokenizer: $what.")

/** What a tokenizer.json holds. What this library does not know is refused by its name. */
internal class TokenizerFile private constructor(root: Map<*, *>, val model: Model) {
    val normalizer: Normalizer? = root["normalizer"]?.let { NormalizerReader.read(it) }
    val preTokenizer: List<PreTokenizer> = root["pre_tokenizer"]?.let { PreTokenizerReader.read(it) }.orEmpty()
    val postProcessor: PostProcessor? = root["post_processor"]?.let { PostProcessorReader.read(it) }
    val decoder: List<Decoder>? = root["decoder"]?.let { DecoderReader.read(it) }
    val added: List<AddedToken> = root["added_tokens"]?.let { readAdded(it.asList("added_tokens")) }.orEmpty()

    init {
        if (model is Bpe && preTokenizer.lastOrNull() !is ByteLevel) refuse("its bpe model has no ByteLevel before it, which makes characters of bytes")
    }

    companion object {
        /** The largest file that is read, in bytes. */
        private const val LARGEST = 32 shl 20

        /** Bytes of all added tokens together. */
        private const val ADDED_BYTES = 1 shl 20

        fun read(json: InputStream): TokenizerFile = try {
            json.use { read(JsonReader(InputStreamReader(Limited(it, LARGEST), Charsets.UTF_8.newDecoder()))) }
        } catch (error: IOException) {
            throw notJson(error)
        } catch (error: IllegalStateException) {
            throw notJson(error)
        } catch (error: IllegalArgumentException) {
            throw notJson(error)
        }

        private fun notJson(error: Exception) =
            EdgebertException("tokenizer.json is not the JSON of a tokenizer: ${error.message ?: error.javaClass.simpleName}; copy it again.", error)

        private fun read(reader: JsonReader): TokenizerFile {
            reader.strictness = Strictness.STRICT
            val tree = JsonTree(reader)
            var model: Model? = null
            val root = reader.members { name ->
                if (name != "model") return@members tree.next()
                model = ModelReader.read(tree)
                null
            }
            if (reader.peek() != JsonToken.END_DOCUMENT) refuse("more follows where it should end")
            if ("version" in root && root["version"] != "1.0") refuse("its version is ${shown(root["version"])}, and 1.0 is known")
            return TokenizerFile(root, model ?: refuse("it has no model"))
        }

        private fun readAdded(listed: List<*>): List<AddedToken> {
            val tokens = listed.map { item ->
                val token = item.asObject("added token")
                token.whole("id", ModelReader.MOST_PIECES - 1)
                AddedToken(
                    token.text("content"), token.flag("single_word"), token.flag("lstrip"), token.flag("rstrip"),
                    token.flag("normalized"), token.flag("special"),
                )
            }
            if (tokens.sumOf { it.content.length } > ADDED_BYTES) refuse("its added tokens have more than $ADDED_BYTES characters")
            return tokens
        }
    }
}

/** The steps of a part of the pipeline, those of sequences in their order. */
private fun steps(part: Any?, inner: String, kinds: List<String>, most: Int = STEPS): List<Map<*, *>> {
    val kind = (part as? Map<*, *>)?.get("type")
    if (part !is Map<*, *> || kind !in kinds) refuse("it has a step ${shown(kind)} among its $inner; supported are ${kinds.joinToString()}")
    if (kind != "Sequence") return listOf(part)
    val found = part[inner].asList(inner).flatMap { steps(it, inner, kinds, most) }
    val names = found.map { it["type"] }.filter { it != "Replace" }
    if (found.size > most || names.size > names.toSet().size) {
        refuse("it has ${found.size} $inner; up to $most are taken, of each kind but Replace one")
    }
    return found
}

private const val STEPS = 32
private const val LONGEST = 256

private fun codes(text: String): IntArray = codePoints(text) { _, unit -> refuse("it has the lone surrogate ${codeName(unit)}") }

private object NormalizerReader {
    private val KINDS = listOf(
        "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Replace", "Sequence",
        "Strip", "StripAccents",
    )

    fun read(part: Any): Normalizer {
        val steps = steps(part, "normalizers", KINDS).map { normalizer(it) }
        return steps.singleOrNull() ?: Normalizer { text -> for (step in steps) step.normalize(text) }
    }

    private fun normalizer(step: Map<*, *>): Normalizer = when (step["type"]) {
        "BertNormalizer" -> {
            val lower = step.flag("lowercase")
            val accents = if (step["strip_accents"] == null) lower else step.flag("strip_accents")
            BertNormalizer(step.flag("clean_text"), step.flag("handle_chinese_chars"), accents, lower)
        }
        "Lowercase" -> Normalizer { lowercase(it) }
        "NFC" -> Normalizer { compose(it, compatible = false) }
        "NFD" -> Normalizer { decompose(it, compatible = false) }
        "NFKC" -> Normalizer { compose(it, compatible = true) }
        "NFKD" -> Normalizer { decompose(it, compatible = true) }
        "Nmt" -> Normalizer { drop(it, Unicode::nmt) }
        "Precompiled" -> Precompiled.of(base64(step.text("precompiled_charsmap")))
        "Prepend" -> prepend(step.text("prepend"))
        "Replace" -> replace(step)
        "Strip" -> Strip(step.flag("strip_left"), step.flag("strip_right"))
        else -> Normalizer { text -> text.filter { !Unicode.isCombining(it) } }
    }

    private fun prepend(text: String): Normalizer {
        val added = codes(text)
        if (added.size > LONGEST) refuse("its normalizer prepends a long text")
        return Normalizer { it.prepend(added) }
    }
}

/** Takes a known pattern or a plain text, and never makes a text longer. */
private fun replace(step: Map<*, *>): Replace {
    val pattern = (step["pattern"] as? Map<*, *>)?.entries?.singleOrNull()
    val content = codes(step.text("content"))
    val sought = pattern?.value as? String
    val (least, found) = when {
        pattern?.key == "Regex" && sought == " {2,}" -> 2 to Pattern.run(2) { it == ' '.code }
        pattern?.key == "Regex" && sought == "\\s+" -> 1 to Pattern.run(1, Unicode::isWhite)
        pattern?.key == "Regex" && sought == "\\s{2,}" -> 2 to Pattern.run(2, Unicode::isWhite)
        pattern?.key == "Regex" && sought == "\\s{2,}|[\\n\\r\\t]" -> 1 to Pattern.runOr(2, Unicode::isWhite) { it == '\n'.code || it == '\r'.code || it == '\t'.code }
        pattern?.key == "String" && sought != null -> codes(sought).let { it.size to Pattern.text(it) }
        else -> refuse("it replaces ${shown(step["pattern"])}; texts and the patterns ' {2,}', '\\s+', '\\s{2,}' and '\\s{2,}|[\\n\\r\\t]' are supported")
    }
    if (content.size > least) refuse("it replaces ${shown(sought)} by the longer ${shown(step["content"])}: texts could grow without end")
    return Replace(found, content)
}

private fun base64(text: String): ByteArray = try {
    kotlin.io.encoding.Base64.decode(text)
} catch (_: IllegalArgumentException) {
    refuse("its precompiled_charsmap is not base64")
}

private object PreTokenizerReader {
    private val KINDS = listOf(
        "BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Sequence", "Whitespace", "WhitespaceSplit",
    )

    fun read(part: Any): List<PreTokenizer> = steps(part, "pretokenizers", KINDS).flatMap { preTokenizers(it) }

    private fun preTokenizers(step: Map<*, *>): List<PreTokenizer> = when (step["type"]) {
        "BertPreTokenizer" ->
            listOf(SplitAt(Delimiters.REMOVED, Unicode::isWhite), SplitAt(Delimiters.ISOLATED, Unicode::isPunctuation))
        "ByteLevel" -> listOf(ByteLevel(step.flag("add_prefix_space"), if ("use_regex" in step) step.flag("use_regex") else true))
        "Digits" -> {
            val each = if (step.flag("individual_digits")) Delimiters.ISOLATED else Delimiters.CONTIGUOUS
            listOf(SplitAt(each, Unicode::isNumeric))
        }
        "Metaspace" -> listOf(Metaspace(mark(step), prepended(step), if (step["split"] == null) true else step.flag("split")))
        "Punctuation" -> listOf(SplitAt(behavior(step), Unicode::isPunctuation))
        "Whitespace" -> listOf(Whitespace)
        else -> listOf(SplitAt(Delimiters.REMOVED, Unicode::isWhite))
    }

    private fun behavior(step: Map<*, *>): Delimiters = when (val name = if ("behavior" in step) step["behavior"] else "Isolated") {
        "Removed" -> Delimiters.REMOVED
        "Isolated" -> Delimiters.ISOLATED
        "MergedWithPrevious" -> Delimiters.MERGED_WITH_PREVIOUS
        "MergedWithNext" -> Delimiters.MERGED_WITH_NEXT
        "Contiguous" -> Delimiters.CONTIGUOUS
        else -> refuse("its Punctuation has the behavior ${shown(name)}")
    }
}

private fun mark(step: Map<*, *>): Int = codes(step.text("replacement")).singleOrNull() ?: refuse("its Metaspace replaces spaces by more or less than one character")

private fun prepended(step: Map<*, *>): Metaspace.Prepended {
    val scheme = when (val name = if ("prepend_scheme" in step) step["prepend_scheme"] else "always") {
        "always" -> Metaspace.Prepended.ALWAYS
        "first" -> Metaspace.Prepended.FIRST
        "never" -> Metaspace.Prepended.NEVER
        else -> refuse("its Metaspace has the prepend_scheme ${shown(name)}; always, first and never are known")
    }
    val older = if (step["add_prefix_space"] == null) true else step.flag("add_prefix_space")
    if (!older && scheme != Metaspace.Prepended.NEVER) refuse("its Metaspace has an add_prefix_space and a prepend_scheme that contradict each other")
    return scheme
}

private object DecoderReader {
    private val KINDS = listOf("ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "WordPiece")

    fun read(part: Any): List<Decoder> = steps(part, "decoders", KINDS).map { decoder(it) }

    private fun decoder(step: Map<*, *>): Decoder = when (step["type"]) {
        "ByteFallback" -> ByteFallback
        "ByteLevel" -> ByteLevelDecoder
        "Fuse" -> Decoder { listOf(it.joinToString("")) }
        "Metaspace" -> MetaspaceDecoder(step.text("replacement").also { mark(step) }, prepended(step) != Metaspace.Prepended.NEVER)
        "Replace" -> replace(step).let { replace -> Decoder { tokens -> tokens.map(replace::replaced) } }
        else -> WordPieceDecoder(step.text("prefix"), step.flag("cleanup"))
    }
}

private object PostProcessorReader {
    private val KINDS = listOf("BertProcessing", "RobertaProcessing", "TemplateProcessing")

    fun read(part: Any): PostProcessor {
        val step = steps(part, "processors", KINDS).single()
        return when (step["type"]) {
            "BertProcessing" -> BertProcessing(id(step, "cls"), id(step, "sep"))
            "RobertaProcessing" ->
                RobertaProcessing(id(step, "cls"), id(step, "sep"), step.flag("trim_offsets"), step.flag("add_prefix_space"))
            else -> template(step)
        }
    }

    /** Of a token and its id. */
    private fun id(step: Map<*, *>, name: String): Int {
        val token = step[name].asList(name)
        if (token.size != 2 || token[0] !is String) refuse("its $name is ${shown(token)}; a token and its id belong there")
        return wholeOf(token[1], name, ModelReader.MOST_PIECES - 1)
    }

    private fun template(step: Map<*, *>): PostProcessor {
        val specials = step["special_tokens"].asObject("special_tokens")
        fun parts(name: String) = step[name].asList(name).map { part(it.asObject("template's part"), specials) }
        return TemplateProcessing(parts("single"), parts("pair"))
    }

    private fun part(part: Map<*, *>, specials: Map<*, *>): TemplateProcessing.Part {
        val (kind, content) = part.entries.singleOrNull() ?: refuse("its template has the part ${shown(part)}")
        val piece = content.asObject("template's part")
        val type = piece.whole("type_id", Int.MAX_VALUE)
        val name = piece.text("id")
        if (kind == "Sequence" && (name == "A" || name == "B")) return TemplateProcessing.Part(null, name == "B", type)
        if (kind != "SpecialToken") refuse("its template has the part ${shown(part)}; texts A and B and special tokens are known")
        val token = specials[name] ?: refuse("its template has the token ${shown(name)}, which its special_tokens lack")
        val ids = token.asObject("special token")["ids"].asList("ids")
        return TemplateProcessing.Part(ids.map { wholeOf(it, "ids", ModelReader.MOST_PIECES - 1) }, false, type)
    }
}

/** Reads a file's bytes up to a limit. */
private class Limited(source: InputStream, private val most: Int) : FilterInputStream(source) {
    private var seen = 0L

    override fun read(): Int = super.read().also { if (it >= 0) count(1) }

    override fun read(bytes: ByteArray, from: Int, size: Int): Int = super.read(bytes, from, size).also { if (it > 0) count(it) }

    private fun count(more: Int) {
        seen += more
        if (seen > most) refuse("it has more than $most bytes")
    }
}
