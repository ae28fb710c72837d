<%@ page session="false" trimDirectiveWhitespaces="true" %><%
int pieces = 10;
String path = request.getRequestURI();
String given = request.getParameter("ms");
long time = given == null ? 0 : Long.parseLong(given);
if (path.equals("/trickle")) {
    response.setContentLength(pieces);
    for (int piece = 0; piece < pieces; piece++) {
        Thread.sleep(time / pieces);
        out.print(".");
        out.flush();
    }
    return;
}
if (path.equals("/upload")) request.getInputStream().readAllBytes();
Thread.sleep(time);
out.print("made fast\n");
%>
