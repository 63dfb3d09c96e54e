package dev.edgebert.jvm

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import com.google.gson.JsonPrimitive
import com.google.gson.Strictness
import com.google.gson.stream.JsonReader
import dev.edgebert.Edgebert
import dev.edgebert.EdgebertException
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.io.StringReader
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import kotlin.system.exitProcess

private const val USAGE = "usage: java -jar edgebert-jvm.jar BUNDLE FILE [--ids] [--threads N]; FILE has a text a line, " +
    "or where it ends in .jsonl an object; - is standard input"

/** Bytes of a line. */
private const val LINE = 1 shl 20

/** What a line of `.jsonl` may have: the first text under one of these, and what goes with it. */
private val FIRST = listOf("text", "question")
private val SECOND = listOf("pair", "context", "choices")

/** Between two tellings of how far it is, in nanoseconds. */
private const val EVERY = 1_000_000_000L

/**
 * Answers each line of a file as `edgebert predict BUNDLE --file FILE` does, in the same JSON; with `--ids` prints its
 * token ids. Exit codes: 0 done, 2 bad usage or input, or a line that could not be answered.
 */
public fun main(arguments: Array<String>) {
    val asked = Asked.of(arguments) ?: fail(USAGE)
    try {
        Edgebert.open(File(asked.bundle), asked.threads).use { exitProcess(if (answer(it, asked) == 0) 0 else 2) }
    } catch (error: EdgebertException) {
        fail(error.message)
    } catch (error: IOException) {
        fail("${asked.file} cannot be read: ${error.message}.")
    }
}

private class Asked(val bundle: String, val file: String, val ids: Boolean, val threads: Int) {
    companion object {
        /** null where these are no arguments. */
        fun of(arguments: Array<String>): Asked? {
            val places = ArrayList<String>()
            var ids = false
            var threads = 1
            val rest = arguments.iterator()
            while (rest.hasNext()) {
                val argument = rest.next()
                when {
                    argument == "--ids" -> ids = true
                    argument == "--threads" -> {
                        threads = (if (rest.hasNext()) rest.next().toIntOrNull() else null)?.takeIf { it > 0 } ?: return null
                    }
                    argument.startsWith("--") -> return null
                    else -> places += argument
                }
            }
            return if (places.size == 2) Asked(places[0], places[1], ids, threads) else null
        }
    }
}

private fun fail(message: String?): Nothing {
    System.err.println("edgebert: $message")
    exitProcess(2)
}

/** Prints an answer for each line; returns how many could not be answered. */
private fun answer(opened: Edgebert, asked: Asked): Int {
    var count = 0
    var failed = 0
    var told = System.nanoTime()
    val out = System.out.buffered()
    (if (asked.file == "-") System.`in` else File(asked.file).inputStream()).buffered().use { stream ->
        for (line in lines(stream)) {
            val answer = try {
                val texts = texts(line, asked.file)
                if (asked.ids) ids(opened, texts) else opened.predict(texts[0], *texts.drop(1).toTypedArray()).toJson()
            } catch (error: EdgebertException) {
                failed++
                """{"error": ${JsonPrimitive(error.message.orEmpty())}}"""
            }
            out.write("$answer\n".toByteArray())
            out.flush()
            count++
            if (System.nanoTime() - told > EVERY) {
                System.err.println("$count answered")
                told = System.nanoTime()
            }
        }
    }
    System.err.println("$count answered, $failed of them with an error")
    return failed
}

/** The ids of a text or a pair, or of a text with each of its choices. */
private fun ids(opened: Edgebert, texts: List<String>): String {
    val rows = if (texts.size <= 2) {
        listOf(opened.encode(texts[0], texts.getOrNull(1)))
    } else {
        texts.drop(1).map { opened.encode(texts[0], it) }
    }
    val told = rows.map { it.ids.joinToString(", ", "[", "]") }
    return if (told.size == 1) """{"ids": ${told[0]}}""" else told.joinToString(", ", """{"ids": [""", "]}")
}

/** Lines without their ends; of one that is too long its first [LINE] bytes. */
private fun lines(stream: InputStream): Sequence<ByteArray> = sequence {
    val line = ByteArrayOutputStream()
    while (true) {
        val byte = stream.read()
        if (byte < 0 && line.size() == 0) return@sequence
        if (byte >= 0 && byte != '\n'.code) {
            if (line.size() < LINE) line.write(byte)
            continue
        }
        val bytes = line.toByteArray()
        line.reset()
        yield(if (bytes.size < LINE && bytes.lastOrNull() == '\r'.code.toByte()) bytes.copyOf(bytes.size - 1) else bytes)
        if (byte < 0) return@sequence
    }
}

/** A line's texts. */
private fun texts(line: ByteArray, file: String): List<String> {
    if (line.size >= LINE) throw EdgebertException("the line has $LINE bytes or more: split the text.")
    val text = try {
        Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(line)).toString()
    } catch (_: CharacterCodingException) {
        throw EdgebertException("the line is not UTF-8: save the file as UTF-8.")
    }
    if (!file.endsWith(".jsonl") && !(file == "-" && text.trimStart().startsWith("{"))) return listOf(text)
    return texts(parsed(text))
}

private fun parsed(text: String): JsonObject =
    try {
        JsonParser.parseReader(JsonReader(StringReader(text)).apply { strictness = Strictness.STRICT }).asJsonObject
    } catch (error: RuntimeException) { // JsonParseException, or IllegalStateException where it is no object
        throw EdgebertException("the line is no JSON object: ${error.message?.lines()?.first()}", error)
    }

private fun texts(raw: JsonObject): List<String> {
    val firsts = FIRST.filter(raw::has)
    val seconds = SECOND.filter(raw::has)
    if (firsts.size != 1 || seconds.size > 1 || (raw.keySet() - FIRST - SECOND - "id").isNotEmpty()) {
        throw EdgebertException(
            "the line has ${raw.keySet().joinToString()}: text or question, and pair, context or choices are taken.",
        )
    }
    val rest = seconds.firstOrNull()?.let { raw.get(it) }
    return listOf(string(raw.get(firsts[0]))) + when {
        rest == null -> emptyList()
        rest.isJsonArray -> rest.asJsonArray.map(::string)
        else -> listOf(string(rest))
    }
}

private fun string(value: JsonElement): String =
    if (value.isJsonPrimitive && value.asJsonPrimitive.isString) value.asString
    else throw EdgebertException("the line's texts are to be strings, and choices a list of them.")
