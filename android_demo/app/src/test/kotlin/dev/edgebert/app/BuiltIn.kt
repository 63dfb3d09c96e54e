package dev.edgebert.app

import java.io.ByteArrayOutputStream
import java.io.File
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
