package dev.edgebert.tokenizer

import com.google.gson.stream.JsonReader
import com.google.gson.stream.JsonToken

/** A number of JSON as it is written. */
internal data class JsonNumber(val text: String) {
    /** null where it is not whole or does not fit. */
    val int: Int? get() = text.toIntOrNull()
}

/** Reads values that are kept whole, up to a number of them in all. */
internal class JsonTree(val reader: JsonReader) {
    private var left = MOST_VALUES

    /** The next value: a Map, a List, a String, a Boolean, a [JsonNumber] or null. */
    fun next(depth: Int = 1): Any? {
        if (depth > DEPTH) refuse("it nests deeper than $DEPTH levels")
        if (left-- == 0) refuse("it has more than $MOST_VALUES values beside its vocabulary")
        return when (reader.peek()) {
            JsonToken.BEGIN_OBJECT -> reader.members { next(depth + 1) }
            JsonToken.BEGIN_ARRAY -> elements(depth)
            JsonToken.STRING -> reader.nextString()
            JsonToken.NUMBER -> JsonNumber(reader.number())
            JsonToken.BOOLEAN -> reader.nextBoolean()
            else -> {
                reader.nextNull()
                null
            }
        }
    }

    private fun elements(depth: Int): List<Any?> {
        val elements = ArrayList<Any?>()
        reader.beginArray()
        while (reader.hasNext()) elements += next(depth + 1)
        reader.endArray()
        return elements
    }
}

/** Reads an object, each key of which may come once; [value] reads the value of a key. */
internal inline fun JsonReader.members(value: (String) -> Any?): Map<String, Any?> {
    val members = LinkedHashMap<String, Any?>()
    beginObject()
    while (hasNext()) {
        val name = nextName()
        if (name in members) refuse("the key ${shown(name)} comes twice")
        members[name] = value(name)
    }
    endObject()
    return members
}

/** Reads a number as it is written. */
internal fun JsonReader.number(): String {
    val text = nextString()
    if (text.length > DIGITS) refuse("it has a number of ${text.length} digits")
    return text
}

/** A value for a message. */
internal fun shown(value: Any?): String {
    val text = if (value is String) "'$value'" else if (value is JsonNumber) value.text else value.toString()
    return if (text.length > 60) text.substring(0, 60) + "..." else text
}

internal fun Any?.asObject(name: String): Map<*, *> = this as? Map<*, *> ?: refuse("its $name is ${shown(this)}; an object belongs there")

internal fun Any?.asList(name: String): List<*> = this as? List<*> ?: refuse("its $name is ${shown(this)}; a list belongs there")

internal fun Map<*, *>.text(name: String): String = this[name] as? String ?: refuse("its $name is ${shown(this[name])}; a text belongs there")

internal fun Map<*, *>.flag(name: String): Boolean =
    this[name] as? Boolean ?: refuse("its $name is ${shown(this[name])}; true or false belongs there")

/** A whole number from 0 up to [most]. */
internal fun Map<*, *>.whole(name: String, most: Int): Int = wholeOf(this[name], name, most)

internal fun wholeOf(value: Any?, name: String, most: Int): Int =
    (value as? JsonNumber)?.int?.takeIf { it in 0..most } ?: refuse("its $name is ${shown(value)}; a whole number from 0 to $most belongs there")

private const val MOST_VALUES = 1_000_000
private const val DEPTH = 50
private const val DIGITS = 400 // the longest that is written for a float64
