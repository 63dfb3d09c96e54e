package dev.edgebert.app

import java.io.ByteArrayOutputStream
import java.io.File
import java.security.MessageDigest
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** The bundle that stands in the app's assets, as files of this machine. */
internal object BuiltIn {
    val folder: File by lazy {
        val folder = File(System.getProperty("edgebert.bundle") ?: "no folder")
        check(File(folder, "manifest.json").isFile) {
            "$folder holds no bundle: run `make export`, or mvn with -Dbundle=FOLDER (the default model, for TFLite)"
        }
        folder
    }

    /** A zip of it, in the folder [top], with [change] made to each file's bytes; null leaves a file out. */
    fun zip(top: String = "", change: (String, ByteArray) -> ByteArray? = { _, bytes -> bytes }): ByteArray {
        val files = folder.listFiles()!!.sorted().map { top + it.name to change(it.name, it.readBytes()) }
        return entries(files.mapNotNull { (name, bytes) -> bytes?.let { name to it } })
    }

    /** A zip of it with another text in place of one of its files, listed and sealed as if that were whole. */
    fun resealed(name: String, change: (String) -> String): ByteArray {
        val changed = change(File(folder, name).readText()).toByteArray()
        val said = Regex("(\"${Regex.escape(name)}\": \\{\\s*\"bytes\": )[0-9]+(,\\s*\"sha256\": \")[0-9a-f]{64}")
        val blank = "\"sha256\": \"${"0".repeat(64)}\""
        val manifest = File(folder, "manifest.json").readText().replaceFirst(Regex("\"sha256\": \"[0-9a-f]{64}\""), blank)
            .replace(said) { "${it.groupValues[1]}${changed.size}${it.groupValues[2]}${sha256(changed)}" }
        val sealed = manifest.replaceFirst(blank, "\"sha256\": \"${sha256(manifest.toByteArray())}\"")
        return zip { file, bytes -> if (file == name) changed else if (file == "manifest.json") sealed.toByteArray() else bytes }
    }

    private fun sha256(bytes: ByteArray): String =
        MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }

    fun entries(files: List<Pair<String, ByteArray>>): ByteArray {
        val out = ByteArrayOutputStream()
        ZipOutputStream(out).use { zip ->
            for ((name, bytes) in files) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(bytes)
            }
        }
        return out.toByteArray()
    }
}
